"""Budgets of accounts and keys, as rows, within transactions that block.

stored JSON -> Budgets at this time -> put, remove -> stored JSON
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from service.accounts import audit
from service.accounts.key_rows import StoredRow, account_of, key_id_of
from service.accounts.keys import Caller
from service.ledger import budgets
from service.ledger.budgets import Budget, Budgets, Window
from service.ledger.schema import accounts, api_keys
from service.ledger.store import Store


class BudgetChange(msgspec.Struct, frozen=True):
    """A budget to set."""

    window: Window
    limit: int
    """In nano-credits."""
    time_zone: str = ""
    """"" for that of the budget, or the default."""


class BudgetRow(msgspec.Struct, frozen=True):
    """A budget that binds a key."""

    account: str
    key_name: str
    """"" for a budget of the account."""
    budget: Budget


class BudgetRows:
    """Sets budgets.

    Every function raises `StoreError` if the store is away.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(
        self,
        account: str,
        key_name: str = "",
        *,
        changes: Sequence[BudgetChange] = (),
        removed: Sequence[Window] = (),
        time_zone: str = "UTC",
    ) -> list[Budget]:
        """Set and remove budgets, and return all budgets of the account or key.

        Args:
            account: The name of the account.
            key_name: The name of a key of it; "" for the account itself.
            changes: The budgets to set. A budget that exists keeps what is spent and held.
            removed: The windows whose budgets are removed.
            time_zone: The time zone of new budgets whose change has none.

        Raises:
            AccountNotFound: There is no such account.
            ApiKeyNotFound: The account has no such key.
        """
        with audit.writing(self._store) as connection:
            # The lock of the account covers its keys. Calls wait for it.
            locked = sa.select(accounts.c.id).where(accounts.c.name == account)
            connection.execute(locked.with_for_update(key_share=True)).one_or_none()
            owner = account_of(connection, account)
            table = api_keys if key_name else accounts
            id_ = key_id_of(connection, owner, key_name) if key_name else owner.id
            is_row = table.c.id == id_
            now = self._store.now(connection)
            stored = connection.execute(sa.select(table.c.budgets).where(is_row)).scalar_one()
            found = _budgets(stored)
            zones = {budget.window: budget.time_zone for budget in found.of}
            for change in changes:
                zone = change.time_zone or zones.get(change.window, time_zone)
                budgets.put(found, change.window, change.limit, zone, now)
            for window in removed:
                budgets.remove(found, window, now)
            written = msgspec.to_builtins(found)
            connection.execute(sa.update(table).where(is_row).values(budgets=written))
            return found.of


def current(stored: Any, now: int) -> list[Budget]:
    """Return stored budgets at a time.

    Args:
        stored: The value of the column `budgets`.
        now: The time.
    """
    found = _budgets(stored)
    budgets.heed_time(found, now)
    return found.of


def binding(connection: sa.Connection, caller: Caller, key: StoredRow, now: int) -> list[BudgetRow]:
    """Return the budgets that bind a key, from its own to those of the account that pays.

    Args:
        connection: The transaction.
        caller: The caller with the key.
        key: The row of the key.
        now: The time.
    """
    rows = [
        BudgetRow(caller.account_name, caller.key_name, one) for one in current(key.budgets, now)
    ]
    chain = ((caller.account_id, caller.account_name), *caller.parents)
    wanted = sa.select(accounts.c.id, accounts.c.budgets)
    found = connection.execute(wanted.where(accounts.c.id.in_([id_ for id_, _ in chain])))
    stored = {row.id: row.budgets for row in found}
    for id_, name in chain:
        rows += [BudgetRow(name, "", one) for one in current(stored[id_], now)]
    return rows


_NONE: Final = 1
"""The serial of the first window of a key or account."""


def _budgets(stored: Any) -> Budgets:
    return Budgets(_NONE, []) if stored is None else msgspec.convert(stored, Budgets)

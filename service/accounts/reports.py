"""Ledger entries, usage totals and acts, as rows. Each function blocks and is one transaction.

statement -> account, key and usage, at one point in time      callers
ledger  usage  acts                                            operators
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from service.accounts import audit
from service.accounts.budget_rows import BudgetRow, binding
from service.accounts.key_rows import ACCOUNTS, KEYS, StoredRow, account_of, key_id_of, subtree
from service.accounts.keys import Caller
from service.ledger.schema import accounts, api_keys, ledger, usage_totals
from service.ledger.store import Store
from service.ledger.usage import HOUR, SUMS

DAY: Final = 24 * HOUR


def month_back(now: int) -> int:
    """Return the start, in UTC, of the day 29 days before today."""
    return now - now % DAY - 29 * DAY


class Reports:
    """The ledger, the usage and the acts in a store.

    Every function raises `StoreError` if the store is away.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def statement(
        self, caller: Caller, *, since: int, most: int
    ) -> tuple[StoredRow, StoredRow, Sequence[StoredRow], Sequence[BudgetRow]] | None:
        """Return a caller's account, key, usage and budgets, or None if its key has ended.

        The usage is totalled by day, newest first.

        Args:
            caller: The caller.
            since: The start of the usage, in nanoseconds since the Unix epoch; a full hour.
            most: Maximum number of usage totals.
        """
        with self._store.reading_at_once() as connection:
            key = connection.execute(
                KEYS.where(api_keys.c.id == caller.key_id, api_keys.c.revoked_at.is_(None))
            ).one_or_none()
            if key is None or (
                key.expires_at is not None and key.expires_at <= self._store.now(connection)
            ):
                return None
            account = connection.execute(ACCOUNTS.where(accounts.c.id == caller.account_id)).one()
            budgets = binding(connection, caller, key, self._store.now(connection))
            wanted = _usage(_interval_start(DAY)).where(
                usage_totals.c.account_id == caller.account_id,
                usage_totals.c.key_id == caller.key_id,
                usage_totals.c.start >= since,
            )
            newest_first = wanted.order_by(sa.desc("start"), *_KEY_AND_MODEL)
            usage = connection.execute(newest_first.limit(most)).all()
            return account, key, usage, budgets

    def ledger(
        self, account: str, *, before: tuple[int, int] | None = None, limit: int = 100
    ) -> Sequence[StoredRow]:
        """Return ledger entries of an account, newest first.

        Args:
            account: The name of the account. The entries of a group are those of its keys.
            before: The `created_at` and `id` of the entry before which to start.
            limit: Maximum number of entries.

        Raises:
            AccountNotFound: There is no such account.
        """
        with self._store.reading() as connection:
            owner = account_of(connection, account)
            # By time, then id: the order of an index.
            place = sa.tuple_(ledger.c.created_at, ledger.c.id)
            if owner.parent_id is None:
                entries = ENTRIES.where(ledger.c.account_id == owner.id)
            else:
                entries = ENTRIES.where(
                    ledger.c.account_id == owner.payer_id,
                    api_keys.c.account_id.in_(subtree(owner.id)),
                )
            wanted = entries.order_by(ledger.c.created_at.desc(), ledger.c.id.desc()).limit(limit)
            if before is not None:
                wanted = wanted.where(place < before)
            return connection.execute(wanted).all()

    def usage(
        self,
        account: str | None = None,
        *,
        since: int,
        until: int | None = None,
        interval: int | None = DAY,
        key_name: str | None = None,
        model: str | None = None,
        after: tuple[int, int, str, str] | None = None,
        limit: int = 10_000,
    ) -> Sequence[StoredRow]:
        """Return usage totals, ordered by the id of the account, interval, key and model.

        Args:
            account: The name of the account, whose groups are included; None for all accounts.
            since: The start in nanoseconds since the Unix epoch, rounded down to a full hour.
            until: The end, rounded up to a full hour; None for no end.
            interval: `HOUR` or `DAY`, in UTC; None for one interval from start to end.
            key_name: Return only the usage of keys with this name.
            model: Return only the usage of this model.
            after: The account, start, key and model of the total after which to start.
            limit: Maximum number of totals.

        Raises:
            AccountNotFound: There is no such account.
            ApiKeyNotFound: The account has no such key.
        """
        since -= since % HOUR
        start = sa.literal(since, sa.BigInteger) if interval is None else _interval_start(interval)
        wanted = _usage(start).where(usage_totals.c.start >= since)
        if until is not None:
            wanted = wanted.where(usage_totals.c.start < until)
        if model is not None:
            wanted = wanted.where(usage_totals.c.model == model)
        with self._store.reading() as connection:
            if account is not None:
                owner = account_of(connection, account)
                wanted = wanted.where(usage_totals.c.account_id.in_(subtree(owner.id)))
                if key_name is not None:
                    key_id = key_id_of(connection, owner, key_name)
                    wanted = wanted.where(usage_totals.c.key_id == key_id)
            elif key_name is not None:
                wanted = wanted.where(api_keys.c.name == key_name)
            if after is not None:
                place = sa.tuple_(usage_totals.c.account_id, start, *_KEY_AND_MODEL)
                # The first condition is redundant, but an index can use it.
                wanted = wanted.where(usage_totals.c.account_id >= after[0], place > after)
            ordered = wanted.order_by(usage_totals.c.account_id, "start", *_KEY_AND_MODEL)
            return connection.execute(ordered.limit(limit)).all()

    def acts(
        self, account: str | None = None, *, before: int | None = None, limit: int = 100
    ) -> Sequence[StoredRow]:
        """Return the acts of operators, newest first. See `audit.entries`.

        Raises:
            AccountNotFound: There is no such account.
        """
        if account is not None:
            with self._store.reading() as connection:
                account_of(connection, account)
        return audit.entries(self._store, account=account, before=before, limit=limit)


# ---------------------------------------------------------------------------------- statements

ENTRIES: Final = sa.select(
    *(column for column in ledger.c if column.name not in ("account_id", "key_id")),
    api_keys.c.name.label("key_name"),
).outerjoin(api_keys, api_keys.c.id == ledger.c.key_id)
"""Selects ledger entries with the names of their keys."""

_KEY_AND_MODEL: Final = (api_keys.c.name, usage_totals.c.model)


def _interval_start(interval: int) -> sa.ColumnElement[int]:
    return usage_totals.c.start - usage_totals.c.start % interval


def _usage(start: sa.ColumnElement[int]) -> sa.Select[Any]:
    """Return a query for usage totals by account, start of the interval, key and model."""
    return (
        sa.select(
            usage_totals.c.account_id,
            accounts.c.name.label("account"),
            start.label("start"),
            api_keys.c.name.label("key_name"),
            usage_totals.c.model,
            # PostgreSQL returns sums of 64-bit integers as decimals.
            *(sa.cast(sa.func.sum(usage_totals.c[n]), sa.BigInteger).label(n) for n in SUMS),
        )
        .join(accounts, accounts.c.id == usage_totals.c.account_id)
        .join(api_keys, api_keys.c.id == usage_totals.c.key_id)
        # Not by the label of `start`, which is also the name of a column.
        .group_by(usage_totals.c.account_id, accounts.c.name, start, *_KEY_AND_MODEL)
    )

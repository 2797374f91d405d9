"""The tables of a store, SQLite or PostgreSQL, with the machine's clock."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import msgspec
import sqlalchemy as sa

from service.ledger.budgets import Budgets
from service.ledger.decisions import decide
from service.ledger.rows import (
    Account,
    Changes,
    Entry,
    EntryKind,
    Hold,
    HoldState,
    Key,
    Operation,
    Outcome,
    Rows,
)
from service.ledger.schema import accounts, api_keys, holds, ledger, usage_totals
from service.ledger.statements import ACCOUNT, ENTRY, HOLD, KEY, columns
from service.ledger.store import Store
from tests.contract.accounts_machine.cast import ACCOUNTS, KEYS, Scope
from tests.contract.accounts_machine.tables import Tables


class StoredTables(Tables):
    """The rows of a store, read again after each change. Earlier rows of the store are deleted.

    Args:
        store: A store with its tables.
    """

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        with store.writing() as connection:
            for table in (usage_totals, ledger, holds, api_keys, accounts):
                connection.execute(sa.delete(table))
            for row in ACCOUNTS:
                values = {"id": row.id, "name": str(row.id), "parent_id": row.parent_id}
                connection.execute(sa.insert(accounts), {**values, "created_at": 0})
            for key in KEYS:
                values = {name: getattr(key, name) for name in KEY if name != "models"}
                values["models"] = None if key.models is None else sorted(key.models)
                values |= {"name": str(key.id), "digest": str(key.id).encode()}
                connection.execute(sa.insert(api_keys), values)

    def apply(self, operations: Sequence[Operation], now: int) -> list[Outcome]:
        """One transaction, at a time of the machine instead of the store."""

        def at_that_time(
            rows: Rows, operations: Sequence[Operation], _: int, *others: Any
        ) -> tuple[list[Outcome], Changes]:
            return decide(rows, operations, now, *others)

        with patch("service.ledger.store.decide", at_that_time):
            outcomes = self._store.apply(operations)
        self._read()
        return outcomes

    def change(self, scope: Scope, **values: Any) -> None:
        """Change columns of an account or a key."""
        super().change(scope, **values)
        of, id_ = scope
        table = accounts if of == "account" else api_keys
        if values.get("budgets") is not None:
            values["budgets"] = msgspec.to_builtins(values["budgets"])
        with self._store.writing() as connection:
            connection.execute(sa.update(table).where(table.c.id == id_).values(**values))

    def _read(self) -> None:
        with self._store.reading_at_once() as connection:

            def rows(table: sa.Table, names: Sequence[str]) -> list[dict[str, Any]]:
                wanted = sa.select(*columns(table, names)).order_by(table.c.id)
                return [_values(row._asdict()) for row in connection.execute(wanted)]

            self.accounts = {row["id"]: Account(**row) for row in rows(accounts, ACCOUNT)}
            # In place, because the specification has the same keys.
            self.keys.update({row["id"]: Key(**row) for row in rows(api_keys, KEY)})
            self.holds = {row["id"]: Hold(**row) for row in rows(holds, HOLD)}
            self.ledger = [Entry(**row) for row in rows(ledger, ENTRY)]
        self.entry_of_hold = {one.hold_id: one for one in self.ledger if one.hold_id is not None}
        self.grants = {
            (one.account_id, one.idempotency_id)
            for one in self.ledger
            if one.idempotency_id is not None
        }


def _values(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a row as the fields of its value."""
    if row.get("budgets") is not None:
        row["budgets"] = msgspec.convert(row["budgets"], Budgets)
    if row.get("models") is not None:
        row["models"] = frozenset(row["models"])
    if "state" in row:
        row["state"] = HoldState(row["state"])
    if "kind" in row:
        row["kind"] = EntryKind(row["kind"])
    return row

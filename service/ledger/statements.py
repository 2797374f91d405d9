"""The rows and columns that a batch reads and writes, on both databases.

    operations -> Wanted -> SELECT -> Rows          the rows that a batch touches
    Changes -> INSERT, UPDATE                       the columns that it writes

The fields of the values in `rows` have the names of their columns, from which `sqlite_statements`
and `postgres_statements` build SQL. SQLAlchemy compiles it to text once, at import: compiling it
for each batch would cost more than running it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from msgspec import structs

from service.ledger.rows import Account, Entry, Grant, Hold, Key, Operation, Place

Values = tuple[Any, ...]
"""A row, as drivers return and accept it."""


def _fields(value: type[Any]) -> tuple[str, ...]:
    """Return the fields of a value, which are the names of its columns."""
    return tuple(field.name for field in structs.fields(value))


ACCOUNT: Final = _fields(Account)
KEY: Final = _fields(Key)
HOLD: Final = _fields(Hold)
ENTRY: Final = _fields(Entry)
GRANT: Final = ("account_id", "idempotency_id")

ACCOUNT_CHANGES: Final = ("balance", "held", "budgets")
KEY_CHANGES: Final = ("requests_tat", "tokens_tat", "running", "used_at", "budgets")
HOLD_CHANGES: Final = ("state", "ended_at", "charged")
"""The columns of existing rows that a batch can change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The rows that a batch of operations touches."""

    accounts: Sequence[int]
    """In order, which is the order of their locks."""
    keys: Sequence[int]
    holds: Sequence[str]
    grants: Sequence[str]
    """Idempotency ids."""

    @classmethod
    def of(cls, operations: Iterable[Operation], *, sent_again: bool) -> "Wanted":
        """Return the rows that operations touch.

        Args:
            operations: The operations.
            sent_again: Whether to read the hold of a `Place` too. It exists only if the `Place` was
                sent before.
        """
        accounts, keys, held, grants = set(), set(), [], []
        for operation in operations:
            accounts.add(operation.account_id)
            if isinstance(operation, Grant):
                grants.append(operation.idempotency_id)
                continue
            keys.add(operation.key_id)
            if operation.parents:
                accounts.update(operation.parents)
            if sent_again or not isinstance(operation, Place):
                held.append(operation.hold_id)
        return cls(accounts=sorted(accounts), keys=list(keys), holds=held, grants=grants)


def columns(table: sa.Table, names: Sequence[str]) -> list[sa.Column[Any]]:
    """Return columns of a table by their names."""
    return [table.c[name] for name in names]

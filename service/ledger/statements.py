"""What the store asks a database, and how the rows become values.

    operations ──► Wanted ──► SELECT ──► Rows            which rows, for a batch
    Changes ──► INSERT, UPDATE, each with its columns    what a batch writes

The fields of the values are named after the columns, and the statements are made of those names:
here is which, in `sqlite` and `postgres` how. The statements are SQLAlchemy's, compiled to text
once: composing them again for each batch would cost more than running them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Protocol

import sqlalchemy as sa
from msgspec import structs

from service.ledger.rows import (
    Account,
    Changes,
    Entry,
    Grant,
    Hold,
    HoldState,
    Key,
    Operation,
    Place,
    Rows,
)
from service.ledger.steps import Work

Values = tuple[Any, ...]
"""A row, as drivers return and take it."""


class ConnectionLostError(Exception):
    """The connection broke in a transaction, which may be committed or not."""


class Spare:
    """A connection that is kept for the next transaction.

    Having the pool check it in and out again costs as much as a statement.

    Args:
        pool: What it is of.
    """

    def __init__(self, pool: sa.Engine) -> None:
        self._pool = pool
        self._kept: deque[sa.PoolProxiedConnection] = deque()

    def take(self) -> sa.PoolProxiedConnection | None:
        """Return it, which is the taker's then; None where there is none."""
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def connect(self) -> sa.PoolProxiedConnection:
        """Return another one; blocks."""
        return self._pool.raw_connection()

    def keep(self, connection: sa.PoolProxiedConnection) -> None:
        """Keep a connection, in which no transaction is open."""
        if self._kept:
            connection.close()
        else:
            self._kept.append(connection)

    def close(self) -> None:
        """Give it back to the pool."""
        while (connection := self.take()) is not None:
            connection.close()


def names_of(value: type[Any]) -> tuple[str, ...]:
    """Return the fields of a value, which are the names of its columns."""
    return tuple(field.name for field in structs.fields(value))


ACCOUNT: Final = names_of(Account)
KEY: Final = names_of(Key)
HOLD: Final = names_of(Hold)
ENTRY: Final = names_of(Entry)
GRANT: Final = ("account_id", "idempotency_id")

ACCOUNT_CHANGES: Final = ("balance", "held")
KEY_CHANGES: Final = ("requests_tat", "tokens_tat", "running")
HOLD_CHANGES: Final = ("state", "ended_at", "charged")
"""What a batch may change of a row that was there."""


def values_of(*names: str) -> Callable[[Any], Values]:
    """Return what takes these fields of a value, in this order."""
    return attrgetter(*names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which rows a batch of operations touches."""

    accounts: Sequence[int]
    """In order, which is the order of their locks."""
    keys: Sequence[int]
    holds: Sequence[str]
    grants: Sequence[str]
    """Idempotency ids."""

    @classmethod
    def of(cls, operations: Iterable[Operation], *, sent_again: bool) -> "Wanted":
        """Return what operations touch.

        Args:
            operations: The operations.
            sent_again: Whether the hold of a `Place` may be there. A new one's is not, which
                spares the search for it; inserting it finds out.
        """
        accounts, keys, held, grants = set(), set(), [], []
        for operation in operations:
            accounts.add(operation.account_id)
            if isinstance(operation, Grant):
                grants.append(operation.idempotency_id)
                continue
            keys.add(operation.key_id)
            if sent_again or not isinstance(operation, Place):
                held.append(operation.hold_id)
        return cls(accounts=sorted(accounts), keys=list(keys), holds=held, grants=grants)


class Transaction(Protocol):
    """A transaction of a database that writes."""

    def read(self, wanted: Wanted) -> Work[tuple[Rows, int]]:
        """Lock the accounts, and return the rows and the store's clock."""

    def any_hold(self, ids: Sequence[str]) -> Work[bool]:
        """Return whether one of these holds is there."""

    def write(self, rows: Rows, changes: Changes) -> None:
        """Write what changed."""


def rows_of(
    accounts: Iterable[Values],
    keys: Iterable[Values],
    held: Iterable[Values],
    grants: Iterable[Values],
) -> Rows:
    """Make the values of rows that were read, each with the columns of its value in order."""
    return Rows(
        accounts={
            id_: Account(id=id_, balance=balance, held=amount) for id_, balance, amount in accounts
        },
        keys={row[0]: _key(row) for row in keys},
        holds={row[0]: _hold(*row) for row in held},
        grants={(account_id, idempotency_id) for account_id, idempotency_id in grants},
    )


def _key(row: Values) -> Key:
    key = Key(**dict(zip(KEY, row, strict=True)))
    if key.models is not None:
        key.models = frozenset(key.models)
    return key


# A hold is read for each request: its columns are spelled out, which is the fastest.
def _hold(  # noqa: PLR0917  (a row is positional)
    id_: str,
    account_id: int,
    key_id: int,
    amount: int,
    tokens: int,
    model: str,
    owner: str,
    created_at: int,
    lease_until: int,
    state: int,
    ended_at: int | None,
    charged: int,
) -> Hold:
    return Hold(
        id=id_,
        account_id=account_id,
        key_id=key_id,
        amount=amount,
        tokens=tokens,
        model=model,
        owner=owner,
        created_at=created_at,
        lease_until=lease_until,
        state=_STATES[state],
        ended_at=ended_at,
        charged=charged,
    )


_STATES: Final = {state.value: state for state in HoldState}


def columns(table: sa.Table, names: Sequence[str]) -> list[sa.Column[Any]]:
    """Return columns of a table by their names."""
    return [table.c[name] for name in names]

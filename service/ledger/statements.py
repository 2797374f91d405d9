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

import msgspec
import sqlalchemy as sa
from msgspec import structs

from service.ledger.rows import (
    Account,
    AnswerRow,
    Changes,
    Entry,
    Event,
    Expire,
    Forget,
    Grant,
    Hold,
    Key,
    Operation,
    Place,
    Release,
    Rows,
    Settle,
)

Values = tuple[Any, ...]
"""A row, as drivers return and accept it."""


def _fields(value: type[Any]) -> tuple[str, ...]:
    """Return the fields of a value, which are the names of its columns."""
    return tuple(field.name for field in structs.fields(value))


ACCOUNT: Final = _fields(Account)
KEY: Final = _fields(Key)
HOLD: Final = _fields(Hold)
ENTRY: Final = _fields(Entry)
EVENT: Final = _fields(Event)
GRANT: Final = ("account_id", "idempotency_id")
ANSWER: Final = _fields(AnswerRow)
CLAIM: Final = tuple(name for name in ANSWER if name != "content")
"""The columns of an answer that a batch reads."""

ACCOUNT_CHANGES: Final = ("balance", "held", "budgets", "answer_bytes", "full_balance")
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
    answers: Sequence[str] = ()

    @classmethod
    def of(cls, operations: Iterable[Operation], *, sent_again: bool) -> "Wanted":
        """Return the rows that operations touch.

        Args:
            operations: The operations.
            sent_again: Whether to read the hold of a `Place` too. It exists only if the `Place` was
                sent before.
        """
        accounts, keys, held, grants, answers = set(), set(), [], [], set()
        for operation in operations:
            accounts.add(operation.account_id)
            if isinstance(operation, Grant):
                grants.append(operation.idempotency_id)
                continue
            if isinstance(operation, Forget):
                answers.add(operation.answer_id)
                continue
            if answer := _answer_of(operation):
                answers.add(answer)
            keys.add(operation.key_id)
            if operation.parents:
                accounts.update(operation.parents)
            if sent_again or not isinstance(operation, Place):
                held.append(operation.hold_id)
        return cls(
            accounts=sorted(accounts),
            keys=list(keys),
            holds=held,
            grants=grants,
            answers=list(answers),
        )


def _answer_of(operation: Place | Settle | Release | Expire) -> str:
    """Return the id of the answer that an operation on a hold touches, or "" if there is none."""
    if isinstance(operation, (Release, Expire)):
        return operation.claim if isinstance(operation, Release) else ""
    place = operation if isinstance(operation, Place) else operation.place
    return "" if place is None or place.claim is None else place.claim.id


def columns(table: sa.Table, names: Sequence[str]) -> list[sa.Column[Any]]:
    """Return columns of a table by their names."""
    return [table.c[name] for name in names]


class DeletedAnswer(msgspec.Struct, gc=False):
    """The id of an answer to delete."""

    id: str


def put_and_deleted(rows: Rows, changes: Changes) -> tuple[list[AnswerRow], list[DeletedAnswer]]:
    """Return the changed answers: those to insert or to replace, and those to delete."""
    put = [rows.answers[id_] for id_ in changes.answers if id_ in rows.answers]
    return put, [DeletedAnswer(id_) for id_ in changes.answers if id_ not in rows.answers]

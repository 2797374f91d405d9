"""The SQL of a batch on SQLite, and the conversion of its rows to values.

ids, as the text of a JSON array -> SELECT … FROM json_each(?) JOIN … -> Rows
values -> a tuple of columns each -> executemany(INSERT, UPDATE)
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from service.ledger import usage
from service.ledger.budgets import Budgets
from service.ledger.rows import Account, AnswerRow, AnswerState, Hold, HoldState, Key, Rows
from service.ledger.schema import (
    accounts,
    answers,
    api_keys,
    events,
    holds,
    ledger,
    usage_totals,
)
from service.ledger.statements import (
    ACCOUNT,
    ACCOUNT_CHANGES,
    ANSWER,
    CLAIM,
    ENTRY,
    EVENT,
    HOLD,
    HOLD_CHANGES,
    KEY,
    KEY_CHANGES,
    Values,
    columns,
)

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """A statement that writes one row."""

    text: str
    values: Callable[[Any], Values]
    """Returns the parameters for a row."""


def _listed(name: str) -> sa.Select[Any]:
    """Return the values of a parameter that is the text of a JSON array."""
    return sa.select(sa.func.json_each(sa.bindparam(name)).table_valued("value").c.value)


def _select(table: sa.Table, names: Sequence[str]) -> str:
    # With IN, SQLite would build a table of the ids first, which takes half as long again.
    wanted = sa.func.json_each(sa.bindparam("ids")).table_valued("value")
    found = sa.select(*columns(table, names)).join_from(wanted, table, table.c.id == wanted.c.value)
    return str(found.compile(dialect=_DIALECT))


def _write(statement: Any, names: Sequence[str] | None = None) -> Write:
    compiled = cast("SQLCompiler", statement.compile(dialect=_DIALECT, column_keys=names))
    # The id selects the row. Only a parameter that sets a column can have the column's name.
    order = ["id" if name == "row" else name for name in compiled.positiontup or ()]
    values = attrgetter(*order)
    if len(order) == 1:  # attrgetter returns the value alone
        return Write(text=str(compiled), values=lambda row: (values(row),))
    return Write(text=str(compiled), values=values)


def _update(table: sa.Table, names: Sequence[str]) -> Write:
    changed: dict[str, Any] = {name: sa.bindparam(name) for name in names}
    return _write(sa.update(table).where(table.c.id == sa.bindparam("row")).values(changed))


def _without_budgets(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != "budgets"]


def _budgets(table: sa.Table) -> Write:
    """Return the statement that writes the budgets of a row that has some."""
    write = _update(table, ("budgets",))
    return Write(text=write.text, values=lambda row: (_encode(row.budgets).decode(), row.id))


def _add(table: sa.Table, of: Sequence[str], sums: Sequence[str]) -> Write:
    statement = sqlite.insert(table)
    added = {name: table.c[name] + statement.excluded[name] for name in sums}
    return _write(statement.on_conflict_do_update(index_elements=of, set_=added), [*of, *sums])


def _put(table: sa.Table, names: Sequence[str]) -> Write:
    """Insert a row, or replace the one with its id."""
    statement = sqlite.insert(table)
    new = {name: statement.excluded[name] for name in names if name != "id"}
    return _write(statement.on_conflict_do_update(index_elements=("id",), set_=new), names)


ACCOUNTS: Final = _select(accounts, ACCOUNT)
KEYS: Final = _select(api_keys, KEY)
HOLDS: Final = _select(holds, HOLD)
ANSWERS: Final = _select(answers, CLAIM)
GRANTS: Final = str(
    sa.select(ledger.c.account_id, ledger.c.idempotency_id)
    .where(
        ledger.c.account_id.in_(_listed("accounts")),
        ledger.c.idempotency_id.in_(_listed("ids")),
    )
    .compile(dialect=_DIALECT)
)
UPDATE_ACCOUNT: Final = _update(accounts, _without_budgets(ACCOUNT_CHANGES))
UPDATE_KEY: Final = _update(api_keys, _without_budgets(KEY_CHANGES))
UPDATE_ACCOUNT_BUDGETS: Final = _budgets(accounts)
UPDATE_KEY_BUDGETS: Final = _budgets(api_keys)
UPDATE_HOLD: Final = _update(holds, HOLD_CHANGES)
INSERT_HOLD: Final = _write(sa.insert(holds), HOLD)
INSERT_ENTRY: Final = _write(sa.insert(ledger), ENTRY)
# An event must never make a transaction fail.
INSERT_EVENT: Final = _write(sqlite.insert(events).on_conflict_do_nothing(), EVENT)
ADD_TOTAL: Final = _add(usage_totals, usage.OF, usage.SUMS)
PUT_ANSWER: Final = _put(answers, ANSWER)
DELETE_ANSWER: Final = _write(sa.delete(answers).where(answers.c.id == sa.bindparam("row")))


def rows_of(
    accounts: Iterable[Values],
    keys: Iterable[Values],
    held: Iterable[Values],
    grants: Iterable[Values],
    answers: Iterable[Values],
) -> Rows:
    """Return the rows as values."""
    return Rows(
        accounts={
            id_: Account(
                id=id_,
                balance=balance,
                held=amount,
                suspended_at=suspended_at,
                parent_id=parent_id,
                budgets=None if budgets is None else _decode(budgets),
                answer_bytes=answer_bytes,
                full_balance=full_balance,
            )
            for (
                id_,
                balance,
                amount,
                suspended_at,
                parent_id,
                budgets,
                answer_bytes,
                full_balance,
            ) in accounts
        },
        keys={row[0]: _key(row) for row in keys},
        holds={row[0]: _hold(*row) for row in held},
        grants={(account_id, idempotency_id) for account_id, idempotency_id in grants},
        answers={row[0]: _answer(row) for row in answers},
    )


def _key(row: Values) -> Key:
    columns: dict[str, Any] = dict(zip(KEY, row, strict=True))
    if columns["models"] is not None:
        columns["models"] = frozenset(json.loads(columns["models"]))
    if columns["budgets"] is not None:
        columns["budgets"] = _decode(columns["budgets"])
    return Key(**columns)


def _answer(row: Values) -> AnswerRow:
    columns: dict[str, Any] = dict(zip(CLAIM, row, strict=True))
    columns["state"] = AnswerState(columns["state"])
    return AnswerRow(**columns)


# Each request reads its hold. Naming the columns one by one is the fastest.
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
    windows: str | None,
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
        windows=windows,
    )


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Budgets).decode
_STATES: Final = {state.value: state for state in HoldState}

"""The SQL of a batch on PostgreSQL, compiled once.

    LOCK     $1 '[3,7]'                  accounts, locked in the order of their ids
    READS    $1 '[5]', $2 '["hold"]'     keys, holds, grants, and the time
    WRITES   $1 '[{"id":3,…}]', …        every change, in one statement

Each parameter and each column of a result is the JSON text of all rows of one kind: most of the
cost of a small batch is per statement. There are several READS and WRITES, because a kind without
rows costs a statement as much as a row; a batch takes the smallest that has all of its kinds.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON, insert
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.sql.compiler import SQLCompiler

from service.ledger import statements, usage
from service.ledger.pipeline import PreparedStatement
from service.ledger.schema import accounts, answers, api_keys, events, holds, ledger, usage_totals

_DIALECT: Final = psycopg_dialect.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy's


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A statement that reads or writes several kinds of rows."""

    statement: PreparedStatement
    kinds: tuple[str, ...]
    """In the order of the columns of its result, if it has any."""
    parameters: tuple[str, ...]


def smallest(queries: Iterable[Query], rows: Mapping[str, Sized]) -> Query:
    """Return the first query that has every kind with rows. The last query has all kinds."""
    needed = {kind for kind, those in rows.items() if those}
    return next(query for query in queries if needed.issubset(query.kinds))


NOW: Final = sa.literal_column(
    "CAST(extract(epoch FROM clock_timestamp()) * 1000000000 AS bigint)", sa.BigInteger
)
"""The server's clock, in nanoseconds since the Unix epoch."""


def _statement(name: str, statement: sa.ClauseElement, *parameters: str) -> PreparedStatement:
    """Compile a statement.

    Raises:
        ValueError: The statement has other parameters, or in another order.
    """
    compiled = cast("SQLCompiler", statement.compile(dialect=_DIALECT))
    if tuple(compiled.positiontup or ()) != parameters:
        raise ValueError(f"{name} has the parameters {compiled.positiontup}")
    return PreparedStatement(name=name.encode(), text=str(compiled).encode())


def _listed(parameter: str, type_: type[sa.types.TypeEngine[Any]]) -> Any:
    """Return the values of a parameter that is the text of a JSON array."""
    given = sa.bindparam(parameter, type_=sa.Text).cast(JSON)
    value = sa.func.json_array_elements_text(given).column_valued("value")
    return sa.any_(sa.func.array(sa.select(value.cast(type_)).scalar_subquery()))


def _found(table: sa.Table, names: Sequence[str], condition: Any, *, locked: bool = False) -> Any:
    """Return rows as the text of one JSON array of objects, NULL if there are none.

    Args:
        table: The table.
        names: The columns.
        condition: The condition of the rows.
        locked: Whether to lock the rows, in the order of their ids.
    """
    wanted = sa.select(*statements.columns(table, names)).where(condition)
    if locked:
        wanted = wanted.order_by(table.c.id).with_for_update(key_share=True)
    rows = wanted.subquery("found")
    return sa.select(sa.func.json_agg(rows.table_valued()).cast(sa.Text)).scalar_subquery()


def _given(table: sa.Table, names: Sequence[str], parameter: str) -> Any:
    """Return the rows of a parameter that is the text of a JSON array of objects."""
    columns = [sa.column(name, table.c[name].type) for name in names]
    given = sa.func.json_to_recordset(sa.bindparam(parameter, type_=sa.Text).cast(JSON))
    return given.table_valued(*columns).render_derived(name="given", with_types=True)


def _update(table: sa.Table, names: Sequence[str], parameter: str) -> Any:
    given = _given(table, ("id", *names), parameter)
    return (
        sa.update(table)
        .where(table.c.id == given.c.id)
        .values({name: given.c[name] for name in names})
    )


def _insert(table: sa.Table, names: Sequence[str], parameter: str) -> Any:
    given = _given(table, names, parameter)
    return insert(table).from_select(
        list(names), sa.select(*(given.c[name] for name in names)), include_defaults=False
    )


def _add(table: sa.Table, of: Sequence[str], sums: Sequence[str], parameter: str) -> Any:
    statement = _insert(table, (*of, *sums), parameter)
    return statement.on_conflict_do_update(
        index_elements=of, set_={name: table.c[name] + statement.excluded[name] for name in sums}
    )


def _put(table: sa.Table, names: Sequence[str], parameter: str) -> Any:
    """Insert rows, or replace those with their ids."""
    statement = _insert(table, names, parameter)
    return statement.on_conflict_do_update(
        index_elements=("id",),
        set_={name: statement.excluded[name] for name in names if name != "id"},
    )


BEGIN: Final = PreparedStatement(
    # READ must see rows committed before LOCK, with any default of the database.
    name=b"BEGIN",
    text=b"BEGIN ISOLATION LEVEL READ COMMITTED",
)
COMMIT: Final = PreparedStatement(name=b"COMMIT", text=b"COMMIT")
LOCK: Final = _statement(
    "lock",
    sa.select(
        _found(
            accounts,
            statements.ACCOUNT,
            accounts.c.id == _listed("accounts", sa.BigInteger),
            locked=True,
        )
    ),
    "accounts",
)
ANY_HOLD: Final = _statement(
    "any_hold",
    sa.select(holds.c.id).where(holds.c.id == _listed("holds", sa.Text)),
    "holds",
)

_READING: Final[Mapping[str, tuple[Any, tuple[str, ...]]]] = {
    "keys": (
        _found(api_keys, statements.KEY, api_keys.c.id == _listed("keys", sa.BigInteger)),
        ("keys",),
    ),
    "holds": (
        _found(holds, statements.HOLD, holds.c.id == _listed("holds", sa.Text)),
        ("holds",),
    ),
    "grants": (
        _found(
            ledger,
            statements.GRANT,
            sa.and_(
                ledger.c.account_id == _listed("accounts", sa.BigInteger),
                ledger.c.idempotency_id == _listed("grants", sa.Text),
            ),
        ),
        ("accounts", "grants"),
    ),
    "answers": (
        _found(answers, statements.CLAIM, answers.c.id == _listed("answers", sa.Text)),
        ("answers",),
    ),
}
"""The part of a READ for each kind of rows, and its parameters."""

_WRITING: Final = {
    "accounts": _update(accounts, statements.ACCOUNT_CHANGES, "accounts"),
    "keys": _update(api_keys, statements.KEY_CHANGES, "keys"),
    "placed": _insert(holds, statements.HOLD, "placed"),
    "ended": _update(holds, statements.HOLD_CHANGES, "ended"),
    "entries": _insert(ledger, statements.ENTRY, "entries"),
    "totals": _add(usage_totals, usage.OF, usage.SUMS, "totals"),
    "answers": _put(answers, statements.ANSWER, "answers"),
    "deleted": sa.delete(answers).where(answers.c.id == _listed("deleted", sa.Text)),
    # An event must never make a transaction fail.
    "events": _insert(events, statements.EVENT, "events").on_conflict_do_nothing(),
}
"""The part of a WRITE for each kind of rows, whose parameter has the same name."""


def _read(*kinds: str) -> Query:
    """Return a query for some kinds of rows, and the time in the last column."""
    found, parameters = zip(*(_READING[kind] for kind in kinds), strict=True)
    names = tuple(name for those in parameters for name in those)
    statement = _statement("_".join(("read", *kinds)), sa.select(*found, NOW), *names)
    return Query(statement=statement, kinds=kinds, parameters=names)


def _write(*kinds: str) -> Query:
    """Return a statement that writes some kinds of rows, all except the last in its WITH."""
    *others, last = kinds
    # A part must not have the name of a table.
    parts = [_WRITING[kind].cte(f"written_{kind}") for kind in others]
    # The server cuts names after 63 bytes.
    name = "_".join(("write", *(kind[:4] for kind in kinds)))
    statement = _statement(name, _WRITING[last].add_cte(*parts), *kinds)
    return Query(statement=statement, kinds=kinds, parameters=kinds)


READS: Final = (
    _read("keys"),
    _read("keys", "holds"),
    _read("keys", "holds", "grants"),
    _read("keys", "holds", "answers"),
    _read("keys", "holds", "grants", "answers"),
)
WRITES: Final = (
    _write("accounts", "keys", "placed"),
    _write("accounts", "keys", "ended", "entries", "totals"),
    _write("accounts", "keys", "placed", "ended", "entries", "totals"),
    _write("accounts", "keys", "ended", "entries", "totals", "events"),
    _write("accounts", "keys", "placed", "ended", "entries", "answers", "deleted", "totals"),
    _write(
        *("accounts", "keys", "placed", "ended", "entries", "answers", "deleted", "totals"),
        "events",
    ),
)
STATEMENTS: Final = (
    *(BEGIN, LOCK, ANY_HOLD, COMMIT),
    *(query.statement for query in (*READS, *WRITES)),
)

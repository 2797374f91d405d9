"""SQLite: a file, with a write-ahead log.

    BEGIN IMMEDIATE ─► SELECT … IN (SELECT value FROM json_each(?)) ─► executemany ─► COMMIT

A transaction takes the writer's lock at its beginning and waits for it for a bounded time. A COMMIT
is on the disk before it is answered (`synchronous = FULL`).

Who has a file open does not notice that it is deleted, moved or replaced: what is written from then
on would be gone with the process. Each transaction therefore looks whether the file is still the
one that was opened first.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from service.ledger import statements, usage
from service.ledger.rows import Changes, Rows
from service.ledger.schema import accounts, api_keys, holds, ledger, usage_totals
from service.ledger.statements import (
    ConnectionLostError,
    Spare,
    Transaction,
    Values,
    Wanted,
    values_of,
)
from service.ledger.steps import Work, blocking, run

_T = TypeVar("_T")

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")
_PRIMARY: Final = 0xFF
"""What of an extended result code is the primary one."""


class SQLite:
    """A database file.

    Args:
        url: Its address.
        clock: Nanoseconds since the Unix epoch.
        busy_timeout: Seconds that a transaction waits for the writer's lock.
    """

    errors: Final = sqlite3.Error
    faults: Final = (sqlite3.IntegrityError, sqlite3.DataError)
    """The errors that an operation causes, and not the state of the database."""

    def __init__(self, url: sa.URL, *, clock: Callable[[], int], busy_timeout: float) -> None:
        self.name = str(url.database)
        self.engine = sa.create_engine(url, connect_args={"timeout": busy_timeout})
        self._file = _File(self.name)
        # Before it is opened: opening a file that is not there makes one.
        sa.event.listen(self.engine, "do_connect", lambda *_: self._file.see())
        sa.event.listen(self.engine, "connect", lambda driver, _: self._prepare(driver))
        sa.event.listen(self.engine, "begin", self._begin)
        sa.event.listen(self.engine, "close", _let_go)
        self.engines = (self.engine,)
        self._busy_timeout = busy_timeout
        self._spare = Spare(self.engine)
        self._clock = clock

    def now(self, _: sa.Connection) -> int:
        """Return the clock."""
        return self._clock()

    def take_time(self, connection: sa.Connection) -> None:
        """Do nothing: only the wait for the writer's lock is bounded, and it is over."""

    def transact(self, body: Callable[[Transaction], Work[_T]]) -> Work[_T]:
        """Do work in a transaction that writes."""
        return blocking(partial(self._transact, body))

    def _transact(self, body: Callable[[Transaction], Work[_T]]) -> _T:
        connection = self._spare.take() or self._spare.connect()
        driver = cast("sqlite3.Connection", connection.driver_connection)
        try:
            self._file.see()
            driver.execute("BEGIN IMMEDIATE")
            result = run(body(_Transaction(driver, self._clock)))
            driver.execute("COMMIT")
        except BaseException as error:
            if isinstance(error, self.errors) and not isinstance(error, self.faults):
                connection.invalidate()
            else:
                connection.close()  # the pool rolls back what was not committed
            if isinstance(error, self.errors) and _is_of_session(error):
                raise ConnectionLostError(str(error)) from error
            raise
        self._spare.keep(connection)
        return result

    def _prepare(self, driver: sqlite3.Connection) -> None:
        self._file.keep()
        # The driver begins no transactions by itself; _begin and _transact do.
        driver.isolation_level = None
        _log_ahead(driver, time.monotonic() + self._busy_timeout)
        driver.execute("PRAGMA synchronous = FULL")
        driver.execute("PRAGMA foreign_keys = ON")

    def _begin(self, connection: sa.Connection) -> None:
        self._file.see()
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def close(self) -> None:
        """Close all connections."""
        self._spare.close()
        self.engine.dispose()

    def interrupt(self, driver: Any) -> None:
        """Make what a connection does fail; from any thread."""
        driver.interrupt()

    def is_closed(self, driver: Any) -> bool:
        """Whether a connection is closed; from any thread."""
        try:
            driver.total_changes  # noqa: B018  (it is of no use, but what asks least)
        except sqlite3.ProgrammingError:
            return True
        return False


def _let_go(driver: sqlite3.Connection, _: object) -> None:
    """Give back the locks of a connection that is about to be closed.

    SQLite itself does so only when the last cursor is gone, which an error may keep.
    """
    with suppress(sqlite3.Error):  # whatever is wrong with it, it is closed
        driver.rollback()


def _is_of_session(error: sqlite3.Error) -> bool:
    """Return whether a statement failed for its connection: a new one may do it.

    A connection that was opened while the file was read-only cannot write for as long as it lives.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)  # the driver's own have none
    return code & _PRIMARY == sqlite3.SQLITE_READONLY


class _File:
    """A file, and whether its name still leads to it.

    Args:
        path: Its name.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._known: tuple[int, int] | None = None

    def keep(self) -> None:
        """Remember the file, once it was opened."""
        if self._known is None:
            self._known = self._found()

    def see(self) -> None:
        """See that the file is the one that was opened, if one was.

        Raises:
            sqlite3.OperationalError: it is not.
        """
        if self._known not in {None, self._found()}:
            raise sqlite3.OperationalError("the file was deleted, moved or replaced while in use")

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


class _Transaction:
    def __init__(self, driver: sqlite3.Connection, clock: Callable[[], int]) -> None:
        self._driver = driver
        self._clock = clock

    def read(self, wanted: Wanted) -> Work[tuple[Rows, int]]:
        yield from ()  # there is nothing to wait for
        grants: Iterable[Values] = ()
        if wanted.grants:
            ids = json.dumps(wanted.accounts), json.dumps(wanted.grants)
            grants = self._driver.execute(_GRANTS, ids)
        rows = statements.rows_of(
            self._select(_ACCOUNTS, wanted.accounts),
            map(_with_models, self._select(_KEYS, wanted.keys)),
            self._select(_HOLDS, wanted.holds),
            grants,
        )
        return rows, self._clock()

    def any_hold(self, ids: Sequence[str]) -> Work[bool]:
        yield from ()
        return any(True for _ in self._select(_HOLDS, ids))

    def _select(self, statement: str, ids: Sequence[object]) -> Iterable[Values]:
        return self._driver.execute(statement, (json.dumps(ids),)) if ids else ()

    def write(self, rows: Rows, changes: Changes) -> None:
        many = self._driver.executemany
        if changes.accounts:
            many(_UPDATE_ACCOUNT, [_account(rows.accounts[id_]) for id_ in changes.accounts])
        if changes.keys:
            many(_UPDATE_KEY, [_key(rows.keys[id_]) for id_ in changes.keys])
        if changes.placed:
            many(_INSERT_HOLD, [_hold(rows.holds[id_]) for id_ in changes.placed])
        if changes.ended:
            many(_UPDATE_HOLD, [_ended(rows.holds[id_]) for id_ in changes.ended])
        if changes.entries:
            many(_INSERT_ENTRY, [_entry(entry) for entry in changes.entries])
            many(_ADD_TOTAL, [_total(total) for total in usage.totals(changes.entries)])


_MODELS: Final = statements.KEY.index("models")


def _with_models(row: Values) -> Values:
    models = row[_MODELS]
    if models is None:
        return row
    return (*row[:_MODELS], json.loads(models), *row[_MODELS + 1 :])


# ----------------------------------------------------------------------------------- statements


def _listed(name: str) -> sa.Select[Any]:
    return sa.select(sa.func.json_each(sa.bindparam(name)).table_valued("value").c.value)


def _text(statement: sa.ClauseElement) -> str:
    return str(statement.compile(dialect=_DIALECT))


def _select(table: sa.Table, names: Sequence[str]) -> str:
    wanted = sa.select(*statements.columns(table, names))
    return _text(wanted.where(table.c.id.in_(_listed("ids"))))


def _update(table: sa.Table, names: Sequence[str]) -> tuple[str, Callable[[Any], Values]]:
    """Return a statement, and what takes its parameters of a row."""
    changed: dict[str, Any] = {name: sa.bindparam(name) for name in names}
    compiled = (
        sa.update(table)
        .where(table.c.id == sa.bindparam("row"))
        .values(changed)
        .compile(dialect=_DIALECT)
    )
    order = ["id" if name == "row" else name for name in _positions(compiled)]
    return str(compiled), values_of(*order)


def _insert(table: sa.Table, names: Sequence[str]) -> tuple[str, Callable[[Any], Values]]:
    compiled = sa.insert(table).compile(dialect=_DIALECT, column_keys=names)
    return str(compiled), values_of(*_positions(compiled))


def _add(
    table: sa.Table, of: Sequence[str], sums: Sequence[str]
) -> tuple[str, Callable[[Any], Values]]:
    statement = sqlite.insert(table)
    added = statement.on_conflict_do_update(
        index_elements=of, set_={name: table.c[name] + statement.excluded[name] for name in sums}
    )
    compiled = added.compile(dialect=_DIALECT, column_keys=[*of, *sums])
    return str(compiled), values_of(*_positions(compiled))


def _positions(compiled: sa.Compiled) -> list[str]:
    return list(cast("SQLCompiler", compiled).positiontup or ())


_ACCOUNTS: Final = _select(accounts, statements.ACCOUNT)
_KEYS: Final = _select(api_keys, statements.KEY)
_HOLDS: Final = _select(holds, statements.HOLD)
_GRANTS: Final = _text(
    sa.select(ledger.c.account_id, ledger.c.idempotency_id).where(
        ledger.c.account_id.in_(_listed("accounts")),
        ledger.c.idempotency_id.in_(_listed("ids")),
    )
)
_UPDATE_ACCOUNT, _account = _update(accounts, statements.ACCOUNT_CHANGES)
_UPDATE_KEY, _key = _update(api_keys, statements.KEY_CHANGES)
_UPDATE_HOLD, _ended = _update(holds, statements.HOLD_CHANGES)
_INSERT_HOLD, _hold = _insert(holds, statements.HOLD)
_INSERT_ENTRY, _entry = _insert(ledger, statements.ENTRY)
_ADD_TOTAL, _total = _add(usage_totals, usage.OF, usage.SUMS)


# ---------------------------------------------------------------------------------- connections


_PAUSE: Final = 0.01
"""Seconds."""


def _log_ahead(connection: sqlite3.Connection, deadline: float) -> None:
    """Turn the write-ahead log on. SQLite itself waits for nobody who does so at the same time."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)

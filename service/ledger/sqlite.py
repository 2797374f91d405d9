"""SQLite: a file, with a write-ahead log.

    BEGIN IMMEDIATE -> SELECT … FROM json_each(?) JOIN … -> executemany -> COMMIT

A transaction takes the writer's lock when it begins, and waits for it for a limited time. Processes
take turns (`turns`), so that none waits much longer than the others.

COMMIT returns after the commit is on disk (`synchronous = FULL`), unless the transaction need not
be durable (`NORMAL`). The log is one file, whose frames are valid only up to the first damaged one.
The flush of a durable commit therefore includes all earlier commits, of every process, and a power
loss can only undo the last commits that were not durable. SQLite flushes the log before it copies
pages from it to the database, and the database before it overwrites the log, with both settings.

SQLite does not notice if its open file is deleted, moved or replaced; later writes would be lost
with the process. Each transaction therefore checks that the file is still the one that was opened
first.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

import msgspec
import sqlalchemy as sa

from service.ledger import sqlite_statements as statements
from service.ledger import usage
from service.ledger.database import (
    ConnectionLostError,
    InThread,
    Spare,
    Transaction,
    blocking,
    run,
)
from service.ledger.rows import Changes, Rows
from service.ledger.statements import Values, Wanted, put_and_deleted
from service.ledger.turns import Turns

_T = TypeVar("_T")

_FLUSHED: Final = "PRAGMA synchronous = FULL"
_UNFLUSHED: Final = "PRAGMA synchronous = NORMAL"
"""The setting of a connection for its next transactions."""

_PRIMARY: Final = 0xFF
"""The mask of the primary code in an extended result code."""


class SQLite:
    """A database file.

    Args:
        url: The URL.
        clock: Returns the current time in nanoseconds since the Unix epoch.
        busy_timeout: Maximum seconds that a transaction waits for the writer's lock.
    """

    errors: Final = sqlite3.Error
    faults: Final = (sqlite3.IntegrityError, sqlite3.DataError)
    """The exceptions that an operation causes, not the state of the database."""

    def __init__(self, url: sa.URL, *, clock: Callable[[], int], busy_timeout: float) -> None:
        self.name = str(url.database)
        self._turns = Turns(f"{self.name}-turns", patience=busy_timeout / 8)
        # What is left when it did not come to a turn.
        waits = busy_timeout * 3 / 4
        self.engine = sa.create_engine(url, connect_args={"timeout": waits})
        self._file = _File(self.name)
        # Before opening the file, because opening a missing file creates it.
        sa.event.listen(self.engine, "do_connect", lambda *_: self._file.ready())
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

    async def transact(
        self,
        body: Callable[[Transaction], Coroutine[Any, Any, _T]],
        in_thread: InThread | None,
        *,
        durable: bool,
    ) -> _T:
        """Run a body in a transaction that writes, all of it in a thread."""
        return await blocking(partial(self._transact, body, durable), in_thread)

    def _transact(
        self, body: Callable[[Transaction], Coroutine[Any, Any, _T]], durable: bool
    ) -> _T:
        connection = self._spare.take() or self._spare.connect()
        driver = cast("sqlite3.Connection", connection.driver_connection)
        try:
            if not durable:
                driver.execute(_UNFLUSHED)
            with self._turns.turn():
                self._file.see()
                driver.execute("BEGIN IMMEDIATE")
                result = run(body(_Transaction(driver, self._clock)))
                driver.execute("COMMIT")
            if not durable:
                driver.execute(_FLUSHED)
        except BaseException as error:
            away = isinstance(error, self.errors) and not isinstance(error, self.faults)
            # Within a transaction, the setting cannot be changed back.
            if away or not durable:
                connection.invalidate()
            else:
                connection.close()  # the pool rolls back an uncommitted transaction
            if isinstance(error, self.errors) and _is_of_session(error):
                raise ConnectionLostError(str(error)) from error
            raise
        self._spare.keep(connection)
        return result

    def _prepare(self, driver: sqlite3.Connection) -> None:
        self._file.keep()
        # The driver does not begin transactions; _begin and _transact do.
        driver.isolation_level = None
        _log_ahead(driver, time.monotonic() + self._busy_timeout)
        driver.execute(_FLUSHED)
        driver.execute("PRAGMA foreign_keys = ON")

    def _begin(self, connection: sa.Connection) -> None:
        self._file.see()
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def turn(self) -> AbstractContextManager[None]:
        """Take the turn of this process for a transaction that writes."""
        return self._turns.turn()

    def close(self) -> None:
        """Close all connections."""
        self._spare.close()
        self.engine.dispose()
        self._turns.close()

    def interrupt(self, driver: Any) -> None:
        """Make the current work of a connection fail. Call it from any thread."""
        driver.interrupt()

    def is_closed(self, driver: Any) -> bool:
        """Whether a connection is closed. Call it from any thread."""
        try:
            driver.total_changes  # noqa: B018  (the cheapest access that fails if it is closed)
        except sqlite3.ProgrammingError:
            return True
        return False


def _let_go(driver: sqlite3.Connection, _: object) -> None:
    """Release the locks of a connection that is about to be closed.

    SQLite itself releases them only after the last cursor, which an error can keep alive.
    """
    with suppress(sqlite3.Error):  # the connection is closed in any case
        driver.rollback()


def _is_of_session(error: sqlite3.Error) -> bool:
    """Return whether a statement failed because of its connection, so that a new one can run it.

    A connection that was opened while the file was read-only can never write.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)  # the driver's own have none
    return code & _PRIMARY == sqlite3.SQLITE_READONLY


class _File:
    """A file, and whether its path still leads to it.

    Args:
        path: The path.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._known: tuple[int, int] | None = None

    def ready(self) -> None:
        """Create the file if it is missing, for its owner alone. SQLite's other files get its mode.

        Raises:
            sqlite3.OperationalError: It was opened before, and is another file now, or none.
        """
        self.see()
        if self._known is None:
            with suppress(OSError):  # SQLite names the error
                # Only a new file: closing one that SQLite has open would release its locks.
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def keep(self) -> None:
        """Remember the opened file."""
        if self._known is None:
            self._known = self._found()

    def see(self) -> None:
        """Check that the file is the one that was opened, if one was.

        Raises:
            sqlite3.OperationalError: It is another file, or none.
        """
        if self._known not in {None, self._found()}:
            raise sqlite3.OperationalError("the file was deleted, moved or replaced while in use")

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _listed(ids: Sequence[object]) -> str:
    return _encode(ids).decode()


_encode: Final = msgspec.json.Encoder().encode


class _Transaction:
    def __init__(self, driver: sqlite3.Connection, clock: Callable[[], int]) -> None:
        self._driver = driver
        self._clock = clock

    async def read(self, wanted: Wanted) -> tuple[Rows, int]:
        grants: Iterable[Values] = ()
        if wanted.grants:
            ids = _listed(wanted.accounts), _listed(wanted.grants)
            grants = self._driver.execute(statements.GRANTS, ids)
        rows = statements.rows_of(
            self._select(statements.ACCOUNTS, wanted.accounts),
            self._select(statements.KEYS, wanted.keys),
            self._select(statements.HOLDS, wanted.holds),
            grants,
            self._select(statements.ANSWERS, wanted.answers) if wanted.answers else (),
        )
        return rows, self._clock()

    async def any_hold(self, ids: Sequence[str]) -> bool:
        return any(True for _ in self._select(statements.HOLDS, ids))

    def _select(self, statement: str, ids: Sequence[object]) -> Iterable[Values]:
        return self._driver.execute(statement, (_listed(ids),)) if ids else ()

    def write(self, rows: Rows, changes: Changes) -> None:
        accounts = [rows.accounts[id_] for id_ in changes.accounts]
        keys = [rows.keys[id_] for id_ in changes.keys]
        self._write(statements.UPDATE_ACCOUNT, accounts)
        self._write(
            statements.UPDATE_ACCOUNT_BUDGETS, [row for row in accounts if row.budgets is not None]
        )
        self._write(statements.UPDATE_KEY, keys)
        self._write(statements.UPDATE_KEY_BUDGETS, [row for row in keys if row.budgets is not None])
        self._write(statements.INSERT_HOLD, [rows.holds[id_] for id_ in changes.placed])
        self._write(statements.UPDATE_HOLD, [rows.holds[id_] for id_ in changes.ended])
        self._write(statements.INSERT_ENTRY, changes.entries)
        self._write(statements.ADD_TOTAL, usage.totals(changes.entries, rows.keys))
        self._write(statements.INSERT_EVENT, changes.events)
        if changes.answers:
            put, deleted = put_and_deleted(rows, changes)
            self._write(statements.PUT_ANSWER, put)
            self._write(statements.DELETE_ANSWER, deleted)

    def _write(self, write: statements.Write, rows: Sequence[object]) -> None:
        if rows:
            self._driver.executemany(write.text, map(write.values, rows))


# ---------------------------------------------------------------------------------- connections


_PAUSE: Final = 0.01
"""Seconds."""


def _log_ahead(connection: sqlite3.Connection, deadline: float) -> None:
    """Turn on the write-ahead log. Retry, because SQLite does not wait for another process here."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)

"""A database, as the store uses it, in a thread or on an event loop.

    run(store.applying(operations))                 in a thread, which blocks
    await store.applying(operations, in_thread)     on an event loop

Both run the same coroutines. `in_thread` runs blocking functions: on SQLite whole transactions, on
PostgreSQL only new connections. The round trips of a transaction on PostgreSQL are awaited.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from service.ledger.rows import Changes, Rows
from service.ledger.statements import Wanted

_T = TypeVar("_T")


class InThread(Protocol):
    """Runs a blocking function in a thread."""

    def __call__(self, function: Callable[[], _T], /) -> Awaitable[_T]:
        """Return the function's result, or raise its error."""


async def blocking(function: Callable[[], _T], in_thread: InThread | None) -> _T:
    """Call a blocking function.

    Args:
        function: The function.
        in_thread: Runs it in a thread; None blocks the caller.
    """
    return function() if in_thread is None else await in_thread(function)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that blocks instead of waiting, and return its result.

    Raises:
        RuntimeError: The coroutine waits for an event loop.
    """
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # typeshed's type is Any
    work.close()
    raise RuntimeError("the coroutine waits for an event loop")


class ConnectionLostError(Exception):
    """The connection broke in a transaction, which can be committed or not."""


class Transaction(Protocol):
    """A transaction that writes."""

    async def read(self, wanted: Wanted) -> tuple[Rows, int]:
        """Lock the accounts, and return the rows and the store's clock."""

    async def any_hold(self, ids: Sequence[str]) -> bool:
        """Return whether one of these holds exists."""

    def write(self, rows: Rows, changes: Changes) -> None:
        """Write the changes."""


class Database(Protocol):
    """The interface of a database."""

    @property
    def name(self) -> str:
        """The file or the URL, without a password."""

    @property
    def engine(self) -> sa.Engine:
        """The pool of connections for everything except batches."""

    @property
    def engines(self) -> Sequence[sa.Engine]:
        """All pools of connections."""

    @property
    def errors(self) -> type[Exception]:
        """The exceptions of the driver."""

    @property
    def faults(self) -> tuple[type[Exception], ...]:
        """Those exceptions that an operation causes, not the state of the database."""

    def now(self, connection: sa.Connection) -> int:
        """Return the store's clock, in nanoseconds since the Unix epoch."""

    def take_time(self, connection: sa.Connection) -> None:
        """Remove the time limits of the transaction, including those for locks."""

    async def transact(
        self,
        body: Callable[[Transaction], Coroutine[Any, Any, _T]],
        in_thread: InThread | None,
        *,
        durable: bool,
    ) -> _T:
        """Run a body in a transaction that writes, and commit it.

        Args:
            body: The body of the transaction.
            in_thread: Runs blocking functions in a thread; None blocks the caller.
            durable: Whether the commit must be on disk when this returns. If not, a crash that also
                ends the calling process can undo it, unless a later durable commit has returned.

        Raises:
            ConnectionLostError: The connection broke. The transaction can be committed or not.
        """

    def turn(self) -> AbstractContextManager[None]:
        """Have this process's turn among those that write, for a transaction of `engine`."""

    def close(self) -> None:
        """Close all connections. Later uses open new ones."""

    def interrupt(self, driver: Any) -> None:
        """Make the current work of a connection fail. Call it from any thread."""

    def is_closed(self, driver: Any) -> bool:
        """Whether a connection is closed. Call it from any thread."""


class Spare:
    """A connection that is kept for the next transaction.

    Checking it in and out of the pool would cost as much as a statement.

    Args:
        pool: The pool of the connection.
    """

    def __init__(self, pool: sa.Engine) -> None:
        self._pool = pool
        self._kept: deque[sa.PoolProxiedConnection] = deque()

    def take(self) -> sa.PoolProxiedConnection | None:
        """Remove and return the connection, or None if there is none."""
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def connect(self) -> sa.PoolProxiedConnection:
        """Return a new connection from the pool. Blocks."""
        return self._pool.raw_connection()

    def keep(self, connection: sa.PoolProxiedConnection) -> None:
        """Keep a connection without an open transaction."""
        if self._kept:
            connection.close()
        else:
            self._kept.append(connection)

    def close(self) -> None:
        """Return the connection to the pool."""
        while (connection := self.take()) is not None:
            connection.close()

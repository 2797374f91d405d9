"""A database, as the store uses it, in a thread or on an event loop.

    run(store.applying(operations))                 in a thread, which blocks
    await store.applying(operations, in_thread)     on an event loop; `in_thread` calls what blocks

Both run the same coroutines. On SQLite all of a transaction blocks. On PostgreSQL only a new
connection does; the round trips of a transaction are awaited.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from service.ledger.rows import Changes, Rows
from service.ledger.statements import Wanted

_T = TypeVar("_T")


class InThread(Protocol):
    """Calls a function in a thread where it can block."""

    def __call__(self, function: Callable[[], _T], /) -> Awaitable[_T]:
        """Return the function's result, or raise its error."""


async def blocking(function: Callable[[], _T], in_thread: InThread | None) -> _T:
    """Call a function that blocks.

    Args:
        function: The function.
        in_thread: Calls it. None lets it block the caller.
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
        return done.value  # type: ignore[no-any-return]  # as typeshed has it
    work.close()
    raise RuntimeError("the coroutine waits for an event loop")


class ConnectionLostError(Exception):
    """The connection broke in a transaction, which may be committed or not."""


class Transaction(Protocol):
    """A transaction that writes."""

    async def read(self, wanted: Wanted) -> tuple[Rows, int]:
        """Lock the accounts, and return the rows and the store's clock."""

    async def any_hold(self, ids: Sequence[str]) -> bool:
        """Return whether one of these holds is there."""

    def write(self, rows: Rows, changes: Changes) -> None:
        """Write what changed."""


class Database(Protocol):
    """What the store needs of an engine."""

    @property
    def name(self) -> str:
        """The file or the address, without a password."""

    @property
    def engine(self) -> sa.Engine:
        """The pool of connections for everything except batches."""

    @property
    def engines(self) -> Sequence[sa.Engine]:
        """All pools of connections."""

    @property
    def errors(self) -> type[Exception]:
        """What the driver raises."""

    @property
    def faults(self) -> tuple[type[Exception], ...]:
        """Those of the errors that an operation causes, and not the state of the database."""

    def now(self, connection: sa.Connection) -> int:
        """Return the store's clock, in nanoseconds since the Unix epoch."""

    def take_time(self, connection: sa.Connection) -> None:
        """Let the transaction run, and wait for locks, for as long as it takes."""

    async def transact(
        self, body: Callable[[Transaction], Coroutine[Any, Any, _T]], in_thread: InThread | None
    ) -> _T:
        """Run a body in a transaction that writes, and commit it.

        Args:
            body: What the transaction does.
            in_thread: Calls functions that block. None lets them block the caller.

        Raises:
            ConnectionLostError: The connection broke. The transaction may be committed or not.
        """

    def close(self) -> None:
        """Close all connections; later ones are opened again."""

    def interrupt(self, driver: Any) -> None:
        """Make what a connection does fail; from any thread."""

    def is_closed(self, driver: Any) -> bool:
        """Whether a connection is closed; from any thread."""


class Spare:
    """A connection that is kept for the next transaction.

    Having the pool check it in and out again costs as much as a statement.

    Args:
        pool: The pool that it belongs to.
    """

    def __init__(self, pool: sa.Engine) -> None:
        self._pool = pool
        self._kept: deque[sa.PoolProxiedConnection] = deque()

    def take(self) -> sa.PoolProxiedConnection | None:
        """Return it and keep it no longer, or return None if there is none."""
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def connect(self) -> sa.PoolProxiedConnection:
        """Return a new one from the pool; blocks."""
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

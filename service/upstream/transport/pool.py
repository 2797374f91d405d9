"""The connections of the transport: their choice and their maximum number.

    acquire -> an idle connection, the last used first -> request, response -> give_back -> idle
            -> a new connection, while a place is free                      -> drop
            -> the next connection or place that becomes free

Every connection that is idle, in use or being opened occupies one of `size` places. If no place is
free, requests wait in a queue; a free place or connection goes to the first of them.
"""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import httpx

from service.upstream.transport.connection import Connection
from service.upstream.transport.dialing import dial


class Origin(NamedTuple):
    """A server, and how long its connections are kept."""

    secure: bool
    host: str
    port: int
    keepalive: float
    """Maximum seconds that a connection is idle."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    """A request that waits for a connection to an origin, or for a place (None)."""

    origin: Origin
    given: asyncio.Future[Connection | None]


class Pool:
    """The connections to all servers.

    Args:
        context: The TLS context.
        size: Maximum connections.
    """

    def __init__(self, context: ssl.SSLContext, *, size: int) -> None:
        self._context = context
        self._free = size
        self._connections: dict[Connection, Origin] = {}
        self._resting: dict[Origin, dict[Connection, None]] = {}
        """The idle connections of each origin, the one that is idle for longest first."""
        self._waiting: deque[_Waiter] = deque()
        self._sweep: asyncio.Handle | None = None
        self._sweep_at = 0.0
        """When it runs, by the event loop's clock. uvloop's handle of a due call has no `when`."""
        self._closed = False

    async def acquire(
        self, origin: Origin, *, wait: float | None, connect: float | None, fresh: bool = False
    ) -> Connection:
        """Return a connection. Call `give_back` or `drop` with it afterwards.

        Args:
            origin: The server.
            wait: Maximum seconds to wait for a place; None for no limit.
            connect: Maximum seconds for a new connection, including DNS and TLS; None for no limit.
            fresh: Whether the connection must be new.

        Raises:
            httpx.PoolTimeout: No place became free in time.
            httpx.ConnectTimeout: The server did not respond in time.
            httpx.ConnectError: The server cannot be reached, or the pool is closed.
        """
        if self._closed:
            raise _closed()
        connection = None if fresh else self._rested(origin)
        if connection is None and not self._take_place():
            connection = await self._wait(origin, wait)
            if connection is not None and (fresh or not connection.alive):
                # It ended before it was returned here; use its place.
                self._connections.pop(connection, None)
                connection.abort()
                connection = None
        return connection or await self._connect(origin, connect)

    def give_back(self, connection: Connection) -> None:
        """Return a connection whose response is complete."""
        origin = self._connections.get(connection)
        if origin is None or not origin.keepalive or not connection.reusable:
            self.drop(connection)
            return
        loop = asyncio.get_running_loop()
        connection.rest(loop.time())
        waiter = self._first()
        if waiter is None:
            self._resting.setdefault(origin, {})[connection] = None
            self._sweep_by(loop.time() + origin.keepalive)
        elif waiter.origin == origin:
            waiter.given.set_result(connection)
        else:
            del self._connections[connection]
            connection.abort()
            waiter.given.set_result(None)

    def drop(self, connection: Connection) -> None:
        """Close a connection if it is open, and free its place."""
        origin = self._connections.pop(connection, None)
        connection.abort()
        if origin is None:
            return
        resting = self._resting.get(origin)
        if resting is not None:
            resting.pop(connection, None)
            if not resting:
                del self._resting[origin]
        self._free_place()

    async def aclose(self) -> None:
        """Close all connections, and wait until their sockets are closed."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while (waiter := self._first()) is not None:
            waiter.given.set_exception(_closed())
        connections = list(self._connections)
        for connection in connections:
            self.drop(connection)
        for connection in connections:
            await connection.closed()

    # ---- connections ----

    def _rested(self, origin: Origin) -> Connection | None:
        """Return the last used idle connection of the origin, if it can be used again."""
        while resting := self._resting.get(origin):
            connection, _ = resting.popitem()
            if not resting:
                del self._resting[origin]
            age = asyncio.get_running_loop().time() - connection.resting_since
            if age < origin.keepalive and connection.alive:
                return connection
            self.drop(connection)
        return None

    async def _connect(self, origin: Origin, patience: float | None) -> Connection:
        """Return a new connection, in a place that is already taken."""
        try:
            async with asyncio.timeout(patience):
                connection = await dial(
                    origin.host,
                    origin.port,
                    self._context if origin.secure else None,
                    lambda: Connection(self._ended),
                )
            if self._closed:
                connection.abort()
                raise _closed()
        except TimeoutError as error:
            self._free_place()
            raise httpx.ConnectTimeout("The server did not answer in time.") from error
        except (OSError, UnicodeError) as error:
            self._free_place()
            raise httpx.ConnectError(str(error)) from error
        except BaseException:
            self._free_place()
            raise
        self._connections[connection] = origin
        return connection

    def _ended(self, connection: Connection) -> None:
        """Remove a connection that ended while it was idle. Users drop the others."""
        origin = self._connections.get(connection)
        if origin is not None and connection in self._resting.get(origin, ()):
            self.drop(connection)

    def _close_expired(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for origin, resting in list(self._resting.items()):
            for connection in list(resting):
                if connection.resting_since > now - origin.keepalive:
                    break
                self.drop(connection)
        self._sweep = None
        ends = [
            next(iter(resting)).resting_since + origin.keepalive
            for origin, resting in self._resting.items()
        ]
        if ends:
            self._sweep_by(min(ends))

    def _sweep_by(self, end: float) -> None:
        """Close expired connections at a time of the event loop's clock, or earlier."""
        if self._sweep is not None:
            if self._sweep_at <= end:
                return
            self._sweep.cancel()
        self._sweep_at = end
        self._sweep = asyncio.get_running_loop().call_at(end, self._close_expired)

    def _oldest(self) -> Connection | None:
        """Return the connection that is idle for longest."""
        return min(
            (next(iter(resting)) for resting in self._resting.values()),
            key=lambda connection: connection.resting_since,
            default=None,
        )

    # ---- places ----

    def _take_place(self) -> bool:
        """Take a free place, or that of an idle connection. Return whether there was one."""
        if not self._free:
            # Connections are idle only while no request waits.
            oldest = self._oldest()
            if oldest is None:
                return False
            self.drop(oldest)
        self._free -= 1
        return True

    def _free_place(self) -> None:
        waiter = self._first()
        if waiter is None:
            self._free += 1
        else:
            waiter.given.set_result(None)

    def _first(self) -> _Waiter | None:
        """Remove and return the first waiter that still waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.given.done():
                return waiter
        return None

    async def _wait(self, origin: Origin, patience: float | None) -> Connection | None:
        """Wait for a connection of the origin, or for a place (None), and return it."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(origin, loop.create_future())
        self._waiting.append(waiter)
        timer = None if patience is None else loop.call_later(patience, _expire, waiter.given)
        try:
            return await waiter.given
        except asyncio.CancelledError:
            if waiter.given.done() and not waiter.given.cancelled():
                self._pass_on(waiter.given)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _pass_on(self, given: asyncio.Future[Connection | None]) -> None:
        """Give the connection or place of a cancelled waiter to the next."""
        if given.exception() is not None:
            return
        connection = given.result()
        if connection is None:
            self._free_place()
        else:
            self.give_back(connection)


def _closed() -> httpx.ConnectError:
    return httpx.ConnectError("The transport is closed.")


def _expire(given: asyncio.Future[Connection | None]) -> None:
    if not given.done():
        given.set_exception(httpx.PoolTimeout("All connections are in use."))

"""Which connection carries a request, and how many there can be.

    acquire ─► one that rests, the last used first ─┐
            ─► a new one, while there is room ──────┼─► request, response ─► give_back ─► rests
            ─► the next that is given back ─────────┘                    └─► drop

Every connection, resting, in use or being made, has one of `size` places. Who finds no place free
waits in a queue, in which each place and each connection goes to the first.
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
    """A server."""

    secure: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class _Waiter:
    """Who waits for a connection to an origin, or for a place, which is None."""

    origin: Origin
    given: asyncio.Future[Connection | None]


class Pool:
    """The connections to all servers.

    Args:
        context: How TLS is spoken.
        size: The most connections at a time.
        keepalive: Seconds that a connection is kept without a request.
    """

    def __init__(self, context: ssl.SSLContext, *, size: int, keepalive: float) -> None:
        self._context = context
        self._keepalive = keepalive
        self._free = size
        self._connections: dict[Connection, Origin] = {}
        self._resting: dict[Origin, dict[Connection, None]] = {}
        """Of each origin those that rest, the one that has for longest first."""
        self._waiting: deque[_Waiter] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def acquire(
        self, origin: Origin, *, wait: float | None, connect: float | None
    ) -> Connection:
        """Return a connection, to be given back or dropped.

        Args:
            origin: The server.
            wait: Seconds to wait for a place; None for no limit.
            connect: Seconds for a new connection, with its name and TLS; None for no limit.

        Raises:
            httpx.PoolTimeout: no place became free in time.
            httpx.ConnectTimeout: the server did not answer in time.
            httpx.ConnectError: there is no connection to the server, or the pool is closed.
        """
        if self._closed:
            raise _closed()
        connection = self._rested(origin)
        if connection is None and not self._take_place():
            connection = await self._wait(origin, wait)
            if connection is not None and not connection.alive:
                # It ended on its way here; its place is ours.
                self._connections.pop(connection, None)
                connection.abort()
                connection = None
        return connection or await self._connect(origin, connect)

    def give_back(self, connection: Connection) -> None:
        """Take a connection whose response is complete."""
        origin = self._connections.get(connection)
        if origin is None or not connection.reusable:
            self.drop(connection)
            return
        loop = asyncio.get_running_loop()
        connection.rest(loop.time())
        waiter = self._first()
        if waiter is None:
            self._resting.setdefault(origin, {})[connection] = None
            if self._sweep is None:
                self._sweep = loop.call_later(self._keepalive, self._close_expired)
        elif waiter.origin == origin:
            waiter.given.set_result(connection)
        else:
            del self._connections[connection]
            connection.abort()
            waiter.given.set_result(None)

    def drop(self, connection: Connection) -> None:
        """Close a connection, if it is not closed; its place is free."""
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
        """Close all connections; return when their sockets are closed."""
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
        """Return the connection of the origin that was used last, if it can be used again."""
        while resting := self._resting.get(origin):
            connection, _ = resting.popitem()
            if not resting:
                del self._resting[origin]
            age = asyncio.get_running_loop().time() - connection.resting_since
            if age < self._keepalive and connection.alive:
                return connection
            self.drop(connection)
        return None

    async def _connect(self, origin: Origin, patience: float | None) -> Connection:
        """Return a new connection, in a place that is ours."""
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
        """Forget a connection that ended while it rested; one in use is its user's to drop."""
        origin = self._connections.get(connection)
        if origin is not None and connection in self._resting.get(origin, ()):
            self.drop(connection)

    def _close_expired(self) -> None:
        loop = asyncio.get_running_loop()
        expired = loop.time() - self._keepalive
        for resting in list(self._resting.values()):
            for connection in list(resting):
                if connection.resting_since > expired:
                    break
                self.drop(connection)
        self._sweep = None
        oldest = self._oldest()
        if oldest is not None:
            self._sweep = loop.call_at(oldest.resting_since + self._keepalive, self._close_expired)

    def _oldest(self) -> Connection | None:
        """Return the connection that has rested for longest."""
        return min(
            (next(iter(resting)) for resting in self._resting.values()),
            key=lambda connection: connection.resting_since,
            default=None,
        )

    # ---- places ----

    def _take_place(self) -> bool:
        """Take a place, if need be that of a connection which rests; return if there is one."""
        if not self._free:
            # Connections rest only while nobody waits.
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
        """Return the first who still waits, and take it out of the queue."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.given.done():
                return waiter
        return None

    async def _wait(self, origin: Origin, patience: float | None) -> Connection | None:
        """Return a connection of the origin, or None for a place."""
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
        """Give to others what came for somebody who has left."""
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

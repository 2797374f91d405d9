"""A connection, with one request and its response at a time.

    exchange -> the head of the response -> read, read, … -> b"" at its end -> rest -> exchange …

Received bytes are parsed immediately. The parser buffers slightly more than `MOST_BUFFERED` bytes
of a body; beyond that, the socket is not read. Every wait has at most one timer.
"""

import asyncio
import select
from collections.abc import Awaitable, Callable
from typing import Final, cast

import httpx

from service.upstream.transport.parser import ResponseParser

MOST_BUFFERED: Final = 8 * 1024
"""Buffered bytes of a body above which the socket is not read."""

SOON: Final = 1.0
"""Maximum seconds after a request at which the end of an idle connection is no failure of it."""

_RECEIVED: Final = memoryview(bytearray(16 * 1024))
"""Where the next bytes of every connection arrive. The loop fills it and calls `buffer_updated`
before it reads another socket. Without it, uvloop reads up to 250 KB at a time, which a caller who
does not read would keep."""

SLICE: Final = 64 * 1024
"""Maximum bytes of a request that are passed to the transport at a time."""


class ServerDisconnected(httpx.RemoteProtocolError):
    """The server closed the connection before the head of its response was complete.

    It is a separate class, because the cause can be a crash of the server or an expired idle
    connection, unlike that of other protocol errors.
    """


class IdleConnectionLost(ServerDisconnected):
    """An idle connection ended soon after a request, before any byte of its response.

    The server probably closed it before the request arrived.
    """


class BodyCut(httpx.RemoteProtocolError):
    """The server closed the connection before the body of its response was complete."""


class Connection(asyncio.BufferedProtocol):
    """A connection to a server.

    Args:
        lost: Called once, with the connection, if it ends while it is idle.
    """

    __slots__ = (
        "_active",
        "_closed",
        "_congested",
        "_failure",
        "_fd",
        "_gone",
        "_lost",
        "_paused",
        "_sent",
        "_started",
        "_transport",
        "_waiter",
        "parser",
        "resting_since",
    )

    def __init__(self, lost: Callable[["Connection"], None]) -> None:
        self.parser: Final = ResponseParser()
        self.resting_since = 0.0
        """The time at which it became idle, by the event loop's clock; 0 for never."""
        self._started = 0.0
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] | None = None
        self._failure: httpx.TransportError | None = None
        self._active = False
        self._congested = False
        self._gone = False
        self._paused = False
        self._sent = True

    # ---- called by the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        # Pause writing as soon as the socket does not accept everything, which starts the write
        # timeout. With high=0, TLS would pause forever.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._fd: int = transport.get_extra_info("socket").fileno()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes arrive."""
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        """Parse received bytes."""
        transport = self._transport
        if transport is None:
            return
        if not self._active:
            # No request is in progress.
            self.abort()
            self._lost(self)
            return
        parser = self.parser
        try:
            parser.feed(bytes(_RECEIVED[:nbytes]))
        except httpx.RemoteProtocolError as error:
            self._failure = error
            self.abort()
        else:
            if parser.buffered > MOST_BUFFERED and not self._paused:
                self._paused = True
                transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Close the connection: HTTP has no half-closed connections."""
        transport = self._transport
        self._end(None)
        if transport is not None:
            # The transport would close itself only after sending everything.
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """End the current exchange."""
        self._gone = True
        self._end(error)
        self.parser.close()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        """Pause writing: the socket does not accept everything."""
        self._congested = True

    def resume_writing(self) -> None:
        """Resume writing: the socket accepted everything."""
        self._congested = False
        self._wake()

    # ---- called by the pool ----

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent after this one."""
        parser = self.parser
        return (
            self._transport is not None
            and self._failure is None
            and self._sent
            and not self._congested
            and parser.complete
            and parser.keep_alive
            and not parser.surplus
        )

    @property
    def alive(self) -> bool:
        """Whether the server has not closed an idle connection.

        This also checks the socket for bytes that have not reached the event loop: a server sends
        nothing on an idle connection, so a readable socket has been closed.
        """
        if self._transport is None:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    def rest(self, now: float) -> None:
        """Make the connection idle. Any received bytes end it."""
        self._active = False
        self.resting_since = now
        self._resume()

    def abort(self) -> None:
        """Close immediately, and discard unsent and unread bytes."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self._active and self._failure is None and not self.parser.complete:
            self._failure = httpx.ReadError("The connection was closed.")
        transport.abort()
        self._wake()

    async def closed(self) -> None:
        """Wait until the socket of an aborted connection is closed."""
        if not self._gone:
            self._closed = asyncio.get_running_loop().create_future()
            await self._closed

    # ---- the exchange ----

    async def exchange(
        self, head: bytes, body: bytes, *, bodiless: bool, read: float | None, write: float | None
    ) -> None:
        """Send a request and wait until the head of its response is parsed.

        If the response arrives before the whole request is sent, the rest is not sent.

        Args:
            head: The request line and the headers.
            body: The framed body.
            bodiless: Whether the response has no body, despite its head.
            read: Maximum seconds between received bytes; None for no limit.
            write: Maximum seconds between sent bytes; None for no limit.

        Raises:
            httpx.TransportError: There is no response. Abort the connection, as after any other
                exception.
        """
        self._started = asyncio.get_running_loop().time()
        parser = self.parser
        parser.start(bodiless=bodiless)
        if self._transport is None:
            self._failure = ServerDisconnected("The server closed the connection.")
            raise self._lost_idle() or self._failure
        self._active = True
        await self._send(head, body, write)
        while not parser.head_complete:
            if self._failure is not None:
                raise self._lost_idle() or self._failure
            await self._wait(read, httpx.ReadTimeout)

    def _lost_idle(self) -> IdleConnectionLost | None:
        """Return the failure of a request that an idle connection lost, or None."""
        age = asyncio.get_running_loop().time() - self._started
        if not self.resting_since or self.parser.begun or age > SOON:
            return None
        if not isinstance(self._failure, ServerDisconnected | httpx.ReadError):
            return None
        return IdleConnectionLost(str(self._failure))

    async def _send(self, head: bytes, body: bytes, write: float | None) -> None:
        self._write(head + body[:SLICE])
        if len(body) > SLICE:
            rest = memoryview(body)
            self._sent = False
            for start in range(SLICE, len(body), SLICE):
                await self._drained(write)
                if self.parser.head_complete or self._failure is not None:
                    return
                self._write(rest[start : start + SLICE])
            self._sent = True
        await self._drained(write)

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def _drained(self, write: float | None) -> None:
        while self._congested and not self.parser.head_complete and self._failure is None:
            await self._wait(write, httpx.WriteTimeout)

    async def read(self, patience: float | None) -> bytes:
        """Return at least one byte of the body, or b"" at its end.

        Args:
            patience: Maximum seconds to wait; None for no limit.

        Raises:
            httpx.TransportError: The rest of the body does not arrive. Abort the connection, as
                after any other exception.
        """
        parser = self.parser
        while not parser.pieces:
            if parser.complete:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._wait(patience, httpx.ReadTimeout)
        data = parser.take()
        self._resume()
        return data

    # ---- waiting ----

    def _wait(
        self, patience: float | None, expired: type[httpx.TimeoutException]
    ) -> Awaitable[None]:
        """Return what is done with the next event of the connection."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        return waiter if patience is None else _timely(waiter, patience, expired)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()

    def _end(self, error: Exception | None) -> None:
        """Mark the connection as ended, with an error, or None for an orderly end."""
        self._transport = None
        if not self._active:
            self._lost(self)
            return
        parser = self.parser
        if self._failure is None and not parser.complete:
            if error is not None:
                self._failure = httpx.ReadError(str(error))
            elif not parser.head_complete:
                self._failure = ServerDisconnected("The server sent no complete head.")
            elif not parser.finish():
                self._failure = BodyCut("The server sent no complete body.")
        self._wake()


async def _timely(
    waiter: asyncio.Future[None], patience: float, expired: type[httpx.TimeoutException]
) -> None:
    timer = asyncio.get_running_loop().call_later(patience, _expire, waiter, expired)
    try:
        await waiter
    finally:
        timer.cancel()


def _expire(waiter: asyncio.Future[None], expired: type[httpx.TimeoutException]) -> None:
    if not waiter.done():
        waiter.set_exception(expired("The server was silent for too long."))

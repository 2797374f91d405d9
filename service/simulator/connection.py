"""HTTP/1.1 on one connection: requests in, one response at a time out.

    bytes -> parser -> complete requests -> queue -> one task per response, in order

The parser never waits. While a response is written, further (pipelined) requests are queued, and
the socket is not read. If the client disconnects, the task of the response is cancelled
immediately, or, if requests are queued, when the queue is empty.
"""

import asyncio
import logging
import time
import traceback
from collections import deque
from typing import Protocol, cast

import httptools
import msgspec

from service.simulator.error_objects import error_body
from service.simulator.exchange import SERVER, Exchange
from service.simulator.records import RequestOutcome, RequestRecord

logger = logging.getLogger("service.simulator")

MAX_HEAD_BYTES = 256 * 1024
"""Maximum bytes of the request line and headers; more get 431 (nginx accepts 32 KiB)."""
LINGER_SECONDS = 2.0
"""Seconds during which a rejected client's bytes are dropped, so that it receives the error."""


class Owner(Protocol):
    """The methods of the server that a connection uses."""

    max_body_bytes: int

    async def respond(self, exchange: Exchange) -> None:
        """Write the response to one request."""

    def connection_made(self, connection: "Connection") -> None:
        """Add a new connection."""

    def connection_lost(self, connection: "Connection") -> None:
        """Remove a lost connection."""

    def request_arrived(self, record: RequestRecord) -> None:
        """Record a complete request."""

    def request_ended(self, record: RequestRecord) -> None:
        """Record the outcome of a request."""


class _Request(msgspec.Struct, kw_only=True, frozen=True):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool
    http_1_0: bool


class Connection(asyncio.Protocol):
    """One connection of a client."""

    transport: asyncio.Transport

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Request] = deque()
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._deaf = False
        self._head_bytes = 0
        self.on_message_begin()

    # ---- the transport calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection."""
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self._owner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the `on_...` methods below."""
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # The request was complete, and its response is being written.
        except httptools.HttpParserError:
            self._refuse(400, "The request is not HTTP/1.1.")
        if not self._in_body and not self._deaf:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "The request's headers are too large.")

    def pause_writing(self) -> None:
        """Pause writing, because the client reads too slowly."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Resume writing."""
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def eof_received(self) -> None:
        """Close the connection: HTTP has no half-closed requests."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response: the connection is closed."""
        if self._linger is not None:
            self._linger.cancel()
        self._waiting.clear()
        self._finish("caller_left")
        if self._task is not None:
            self._task.cancel()
        self._owner.connection_lost(self)

    # ---- called by the response ----

    @property
    def congested(self) -> bool:
        """Whether the transport's buffer is full."""
        return self._writable is not None

    async def drained(self) -> None:
        """Wait until the transport accepts more."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    # ---- the parser calls ----

    def on_message_begin(self) -> None:
        """Start a request."""
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._in_body = False

    def on_url(self, url: bytes) -> None:
        """Add a piece of the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        """Check the complete head."""
        self._head_bytes = 0
        self._in_body = True
        if int(self._headers.get("content-length", 0)) > self._owner.max_body_bytes:
            self._refuse(413, "The request's body is too large.")
        elif "expect" in self._headers and self._exchange is None and not self._deaf:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Add a piece of the body."""
        if self._deaf:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._owner.max_body_bytes:
            self._refuse(413, "The request's body is too large.")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Respond to the complete request."""
        self._in_body = False
        if self._deaf:
            return
        request = _Request(
            method=self._parser.get_method().decode("latin-1"),
            path=self._target.decode("latin-1"),
            headers=self._headers,
            body=b"".join(self._body),
            keep_alive=self._parser.should_keep_alive() and not self._parser.should_upgrade(),
            http_1_0=self._parser.get_http_version() == "1.0",
        )
        self._body = []
        if self._exchange is None:
            self._answer(request)
        else:
            if not self._waiting:
                self.transport.pause_reading()
            self._waiting.append(request)

    # ---- the lifetime of a response ----

    def stop(self) -> asyncio.Task[None] | None:
        """Abort the response, and return its task, which is still ending."""
        self._finish("aborted")
        if self._task is not None:
            self._task.cancel()
        self.transport.abort()
        return self._task

    def _answer(self, request: _Request) -> None:
        record = RequestRecord(
            method=request.method,
            path=request.path,
            headers=request.headers,
            body=request.body,
            started=time.monotonic(),
        )
        self._exchange = Exchange(
            self, record, keep_alive=request.keep_alive, http_1_0=request.http_1_0
        )
        self._owner.request_arrived(record)
        self._task = asyncio.get_running_loop().create_task(self._run(self._exchange))

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._owner.respond(exchange)
        except Exception as exc:  # noqa: BLE001 - a bug ends one connection, not the server
            frame = traceback.extract_tb(exc.__traceback__)[-1]
            # Not the exception's text, which can contain a part of the request.
            logger.error("failed: %s at %s:%s", type(exc).__name__, frame.filename, frame.lineno)
            self._finish("aborted")
            self.transport.abort()
            return
        if not exchange.complete:
            self._finish("aborted")
            self.transport.close()
            return
        self._finish("completed")
        self._task = None
        if not exchange.keep_alive:
            self.transport.close()
        elif self._waiting:
            request = self._waiting.popleft()
            if not self._waiting:
                self.transport.resume_reading()
            self._answer(request)

    def _finish(self, outcome: RequestOutcome) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.record.outcome = outcome
        exchange.record.finished = time.monotonic()
        exchange.record.ended.set()
        self._owner.request_ended(exchange.record)

    def _refuse(self, status: int, message: str) -> None:
        """Reject an incomplete request, and read no further ones."""
        if self._deaf:
            return
        self._deaf = True
        self._waiting.clear()
        if self._exchange is not None:
            self._exchange.keep_alive = False
            return
        body = error_body(message)
        self.transport.write(
            b"HTTP/1.1 %d Refused\r\nserver: %b\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, SERVER.encode(), len(body), body)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        loop = asyncio.get_running_loop()
        self._linger = loop.call_later(LINGER_SECONDS, self.transport.abort)

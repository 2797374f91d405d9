"""HTTP/1.1 on one connection: requests in, one answer at a time out.

    bytes -> parser -> whole requests -> queue -> one task per answer, in the order of the requests

The parser never waits. While an answer is written, further (pipelined) requests queue up, and from
the first of them on the socket is not read. Whoever leaves is noticed by the transport, and the
task of the answer is cancelled at once; only a caller that left queued requests behind is noticed
when the queue is empty again.
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
"""A request line and headers longer than this are refused with 431 (nginx takes 32 KiB)."""
LINGER_SECONDS = 2.0
"""How long a refused caller's remaining bytes are read and dropped, so that it sees the refusal."""


class Owner(Protocol):
    """What a connection needs of the server."""

    max_body_bytes: int

    async def respond(self, exchange: Exchange) -> None:
        """Write the answer to one request."""

    def connection_made(self, connection: "Connection") -> None:
        """Note a caller who has connected."""

    def connection_lost(self, connection: "Connection") -> None:
        """Forget a connection that is gone."""

    def request_arrived(self, record: RequestRecord) -> None:
        """Note a request that is complete and about to be answered."""

    def request_ended(self, record: RequestRecord) -> None:
        """Note that the outcome of a request is known."""


class _Request(msgspec.Struct, kw_only=True, frozen=True):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool
    http_1_0: bool


class Connection(asyncio.Protocol):
    """One caller's connection."""

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
        """Begin with a caller who has connected."""
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self._owner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the `on_...` methods below."""
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # The request itself was complete and is being answered.
        except httptools.HttpParserError:
            self._refuse(400, "The request is not HTTP/1.1.")
        if not self._in_body and not self._deaf:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "The request's headers are too large.")

    def pause_writing(self) -> None:
        """Hold back: the caller reads slower than the simulator writes."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Go on: the caller has caught up."""
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def eof_received(self) -> None:
        """Leave: a caller that closes its side has left, as HTTP has no half-closed requests."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the caller left, or the simulator hung up."""
        if self._linger is not None:
            self._linger.cancel()
        self._waiting.clear()
        self._finish("caller_left")
        if self._task is not None:
            self._task.cancel()
        self._owner.connection_lost(self)

    # ---- the answer writes ----

    @property
    def congested(self) -> bool:
        """The transport holds as many unsent bytes as it should."""
        return self._writable is not None

    async def drained(self) -> None:
        """Wait until the transport takes more."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    # ---- the parser calls ----

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._in_body = False

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        """Take the complete head; the body follows."""
        self._head_bytes = 0
        self._in_body = True
        if int(self._headers.get("content-length", 0)) > self._owner.max_body_bytes:
            self._refuse(413, "The request's body is too large.")
        elif "expect" in self._headers and self._exchange is None and not self._deaf:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._deaf:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._owner.max_body_bytes:
            self._refuse(413, "The request's body is too large.")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer the complete request."""
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

    # ---- the life of an answer ----

    def stop(self) -> asyncio.Task[None] | None:
        """Break off; return the task that is still ending."""
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
        except Exception as exc:  # noqa: BLE001 - a bug costs one connection, not the server
            frame = traceback.extract_tb(exc.__traceback__)[-1]
            # The exception's text may hold a piece of the request: it is not logged.
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
        """Answers a request that never became whole, and reads no further one."""
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

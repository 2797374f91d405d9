"""One HTTP/1.1 response.

    reply(status, body)                             a response of known length
    head(...) -> event(...)* | body(...)* -> end()  a streamed response, chunked
    raw(...), flush(), reset(), hang_up()           for faults

Writing never waits. `drained()` waits while the client reads slower than the simulator writes.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol

from service.simulator.records import RequestRecord

SERVER = "chat-completion-simulator"
JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"

Headers = Iterable[tuple[str, str]]

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n" for s in HTTPStatus}
_NO_LINGER = struct.pack("ii", 1, 0)


class Line(Protocol):
    """The methods of the connection that an exchange uses."""

    transport: asyncio.Transport

    @property
    def congested(self) -> bool:
        """Whether the client reads too slowly, so that nothing should be written now."""

    async def drained(self) -> None:
        """Wait until the connection accepts more."""


class Exchange:
    """The response to one request.

    Its task is cancelled when the connection is lost. Close resources in `finally`.
    """

    def __init__(
        self, line: Line, record: RequestRecord, *, keep_alive: bool, http_1_0: bool
    ) -> None:
        self.record = record
        self.keep_alive = keep_alive
        self.complete = False
        """Whether the complete, well-formed response was passed to the transport."""
        self._line = line
        self._transport = line.transport
        self._http_1_0 = http_1_0
        self._chunked = False

    @property
    def congested(self) -> bool:
        """Whether writing must wait for `drained()`."""
        return self._line.congested

    async def drained(self) -> None:
        """Wait while the client reads slower than the simulator writes."""
        if self._line.congested:
            await self._line.drained()

    def reply(
        self, status: int, body: bytes, *, content_type: str = JSON, headers: Headers = ()
    ) -> None:
        """Write the complete response at once."""
        head = self._head(status, content_type, headers, f"content-length: {len(body)}\r\n")
        self.raw(head if self.record.method == "HEAD" else head + body)
        self.complete = True

    def head(
        self,
        status: int = 200,
        *,
        content_type: str = EVENT_STREAM,
        headers: Headers = (),
        length: int | None = None,
    ) -> None:
        """Write the head of a streamed response: chunked, or with a (possibly wrong) length."""
        if length is not None:
            framing = f"content-length: {length}\r\n"
        elif self._http_1_0:
            self.keep_alive = False
            framing = ""
        else:
            self._chunked = True
            framing = "transfer-encoding: chunked\r\n"
        self.raw(self._head(status, content_type, headers, framing))

    def event(self, payload: bytes) -> None:
        """Write a server-sent event. The payload must not contain a line end."""
        self.record.chunks_sent += 1
        self.body(b"data: %b\n\n" % payload)

    def body(self, data: bytes) -> None:
        """Write a piece of the body; if the body is chunked, as one HTTP chunk."""
        if self._chunked:
            self.raw(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.raw(data)

    def end(self) -> None:
        """Write the end of a streamed response."""
        if self._chunked:
            self.raw(b"0\r\n\r\n")
        self.complete = True

    def raw(self, data: bytes) -> None:
        """Write bytes without framing."""
        self.record.bytes_sent += len(data)
        self._transport.write(data)

    async def flush(self) -> None:
        """Wait until the operating system has accepted all bytes."""
        low, high = self._transport.get_write_buffer_limits()
        self._transport.set_write_buffer_limits(high=0)
        try:
            await self.drained()
        finally:
            self._transport.set_write_buffer_limits(high=high, low=low)

    def reset(self) -> None:
        """Break the connection with a TCP reset. Bytes that were not flushed are lost."""
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER
        )
        self._transport.abort()

    def hang_up(self) -> None:
        """Close the connection (FIN) after the written bytes, also if the body is incomplete."""
        self._transport.close()

    def _head(self, status: int, content_type: str, headers: Headers, framing: str) -> bytes:
        self.record.status = status
        lines = [
            _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unassigned\r\n",
            f"server: {SERVER}\r\ncontent-type: {content_type}\r\n",
            framing,
        ]
        lines += [f"{name}: {value}\r\n" for name, value in headers]
        if not self.keep_alive:
            lines.append("connection: close\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")

"""One HTTP/1.1 connection, with limits that an ASGI application cannot enforce.

    connected -> head -> exchange -> idle -> head -> …         uvicorn's protocol, on llhttp

    connected   connections: 503
    head        head_bytes, headers: 431; head_seconds: 408; malformed: 400
    exchange    exchange_seconds: reset; a second request in the meantime is ignored
    idle        idle_seconds: closed

llhttp rejects Transfer-Encoding together with Content-Length, a second Content-Length, folded
lines, bare line feeds, and spaces in names. `head` rejects other malformed heads.

After a rejection, the bridge reads and discards for a moment before it closes the connection.
Closing it while the client still sends would reset it, and the client could lose the response.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from process import request_id
from restbridge.error_responses import ErrorResponse, of_reason
from restbridge.headers import single
from restbridge.http.exchange import CONNECTION
from restbridge.http.head import BadHeadError, Head
from restbridge.http.lazy_event import LazyEvent, LeanFlow
from restbridge.http.limits import LINGER, Limits
from restbridge.telemetry import Telemetry

_MOST_IGNORED: Final = 1024 * 1024
"""Maximum bytes to discard after a rejection."""

_LARGEST_COPIED: Final = 64 * 1024
"""Maximum bytes of a body that are copied behind the head."""

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class _SecondRequestError(Exception):
    """A request began before the response to the preceding one was complete."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within limits.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's state.
        app_state: uvicorn's state of the lifespan.
        limits: The limits.
        telemetry: Counts connections.
        closing: Returns whether connections are no longer accepted.
        draining: Returns whether connections close after their next response.
    """

    # In uvicorn's dictionary of attributes, these would take 1.2 KB: the dictionary would then
    # have more than the 30 names that the instances of a class share.
    __slots__ = (
        *("_closing", "_deaf", "_draining", "_end_timer", "_head", "_head_timer", "_ignored"),
        *("_left", "_limits", "_replays", "_telemetry"),
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        telemetry: Telemetry,
        closing: Callable[[], bool],
        draining: Callable[[], bool],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # Of a second request, nothing is queued: see `on_message_begin`. A queue takes 0.7 KB.
        self.pipeline = cast("deque[Any]", ())
        self._closing = closing
        self._draining = draining
        self._limits = limits
        self._telemetry = telemetry
        self._head = Head(limits)
        self._head_timer = _Timer(self.loop)
        self._end_timer = _Timer(self.loop)
        self._deaf = False
        self._ignored = 0
        self._replays = False
        self._left: Callable[[], None] | None = None

    # ------------------------------------------------------------------------ asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Accept a connection, or reject it if there are too many."""
        super().connection_made(transport)
        self.flow = LeanFlow(transport)
        self._telemetry.connections.inc()
        # A stream waits for its client as soon as the socket does not accept everything. With
        # high=0, TLS would pause forever.
        transport.set_write_buffer_limits(high=1, low=0)
        _limit_stall(transport, self._limits.stall_seconds)
        if self._closing():
            # It was accepted just before the shutdown, which has not seen it.
            transport.close()
        elif len(self.connections) > self._limits.connections:
            self._refuse(of_reason("OVERLOADED"))
        else:
            self._head_timer.start(self._limits.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._telemetry.connections.dec()
        self._head_timer.stop()
        self._end_timer.stop()
        super().connection_lost(exc)
        if self._left is not None:
            self._left()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if self._deaf:
            self._ignore(len(data))
            return
        self._unset_keepalive_if_required()
        if not self._is_busy():
            self._head_timer.start(self._limits.head_seconds, self._head_is_late)
        try:
            self._feed(data)
            if not self._is_busy():
                self._head.unfinished(len(data))
        except BadHeadError as bad:
            self._refuse(bad.failure)
        except _SecondRequestError:
            # Finish the current response; the client must send the other request again.
            self._deaf = True
            self.cycle.keep_alive = False

    @property
    def has_body(self) -> bool:
        """Whether all of the request's body has arrived."""
        return not self.cycle.more_body

    async def drained(self) -> None:
        """Wait until the client has read enough for the next write, or has disconnected."""
        if self.flow.write_paused:
            await self.flow.drain()

    def watch(self, left: Callable[[], None] | None) -> None:
        """Call `left` once when the client disconnects, or now if it has. None cancels this."""
        self._left = left
        if left is None:
            return
        if self.cycle.disconnected:
            left()
        else:
            # uvicorn stops reading after a large body.
            self.flow.resume_reading()

    def forget_request(self) -> None:
        """Free the head of the request and its parser, because a long response has begun."""
        scope = cast("dict[str, Any]", self.cycle.scope)
        method = scope["method"]  # the only member that is used from now on
        self.headers.clear()
        scope.clear()
        scope["method"] = method
        if self.has_body:
            self.parser = cast("httptools.HttpRequestParser", None)  # `_feed` makes another

    def announce_end(self) -> None:
        """Make the response, if it has not begun, announce the close of the connection."""
        if self._is_busy() and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def cut(self) -> None:
        """Close the connection within a response, after sending all written data.

        The last chunk is missing, so that no client can treat the response as complete.
        """
        cycle = self.cycle
        if cycle.disconnected or cycle.response_complete:
            return
        _send_head(cycle)
        # The state in which uvicorn ends a response before it closes the connection.
        cycle.response_complete = True
        cycle.message_event.set()
        self.transport.close()
        self.on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._end_timer.start(self._limits.stall_seconds, self.transport.abort)

    # ------------------------------------------------------------------------- llhttp's callbacks

    def on_message_begin(self) -> None:
        """Start a request."""
        if self._replays:
            return
        if self._is_busy():
            raise _SecondRequestError
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self

    def on_url(self, url: bytes) -> None:
        """Count a part of the request line."""
        if not self._replays:
            self._head.line(url)
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Count and drop trailers, which follow the body."""
        if not self._replays:
            self._head.header(name, value)
            if not self._is_busy():
                super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the exchange."""
        if self._replays:
            self._replays = False
            return
        self._head.complete(self.parser.get_http_version())
        self._head_timer.stop()
        self._head = Head(self._limits)
        super().on_headers_complete()
        cycle = self.cycle
        cycle.transport = cast("asyncio.Transport", _Joined(cycle))
        cycle.message_event = cast("asyncio.Event", LazyEvent())
        if self._draining():
            # The client must not send another request: it would see a reset.
            self.cycle.keep_alive = False
        self._end_timer.start(self._limits.exchange_seconds, self.transport.abort)

    def on_message_complete(self) -> None:
        """End the request. Its response may already have begun."""
        # llhttp ends a request with Upgrade after its head, before its body.
        if not self.parser.should_upgrade():
            self._head = Head(self._limits)
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the end of the connection."""
        _send_head(self.cycle)
        super().on_response_complete()
        self._end_timer.stop()
        self.headers = []  # the next request has its own
        if self.transport.is_closing():
            # The client possibly does not read the rest of the response.
            self._end_timer.start(self._limits.stall_seconds, self.transport.abort)

    # ------------------------------------------------------------------------------------ private

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _feed(self, data: bytes) -> None:
        if self.parser is None:
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, BadHeadError | _SecondRequestError):
                raise cause from None
            raise BadHeadError(of_reason("MALFORMED_HTTP")) from None

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the body of a request whose Upgrade is ignored (RFC 9110, section 7.8).

        Java's HTTP client requests HTTP/2 in this way with its first request. llhttp cannot
        continue after an Upgrade, so a new parser receives the framing of the same request.
        """
        framing = [(name, value) for name, value in self.headers if name in _FRAMING]
        lines = [b"POST / HTTP/1.1", b"host: -", *(b"%b: %b" % line for line in framing)]
        self.parser = httptools.HttpRequestParser(self)
        self._replays = True
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _head_is_late(self) -> None:
        if self._head.has_begun:
            self._refuse(of_reason("REQUEST_TIMEOUT"))
        else:
            self.transport.close()

    def _refuse(self, failure: ErrorResponse) -> None:
        """Send an error for a malformed request and close the connection."""
        self._deaf = True
        self._head_timer.stop()
        if self._is_busy():
            # The body cannot be read to its end; stop waiting for it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                _send_head(self.cycle)
                self.transport.close()
                return
        asked = single(self.headers or (), request_id.HEADER.encode("ascii"))
        exchange_id = request_id.accept(asked.decode("latin-1") if asked is not None else None)
        self._telemetry.refused(failure, exchange_id)
        body = failure.body()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode("ascii")),
            (request_id.HEADER.encode("ascii"), exchange_id.encode("ascii")),
            *(pair for pair in failure.headers() if pair[0] != b"connection"),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        self.transport.write(STATUS_LINE[failure.status] + lines + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._end_timer.stop()
        self._end_timer.start(LINGER, self.transport.abort)

    def _ignore(self, size: int) -> None:
        self._ignored += size
        if self._ignored > _MOST_IGNORED:
            self.transport.abort()


class _Joined:
    """The transport of one response: sends the head together with the first piece of the body.

    A write costs more than everything else that uvicorn does for a response.

    Args:
        cycle: uvicorn's state of the exchange. It has its own transport back after the first piece.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Keep a head, and send everything else."""
        if not self._cycle.response_started:
            self._transport.write(data)  # 100 Continue
        elif not self._head:
            self._head = data
        elif len(data) <= _LARGEST_COPIED:
            self._head += data
            self.send()
        else:
            self.send()
            self._transport.write(data)

    def send(self) -> None:
        """Send the kept head, if there is one."""
        if self._head:
            self._cycle.transport = self._transport
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Send the kept head, and close the connection."""
        self.send()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection closes."""
        return self._transport.is_closing()


def _send_head(cycle: RequestResponseCycle) -> None:
    """Send the head of a response that has no body so far."""
    transport = cast("object", cycle.transport)
    if isinstance(transport, _Joined):
        transport.send()


class _Timer:
    """A timer for one call.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back after `seconds`, unless the timer already runs."""
        if self._handle is None:
            self._handle = self._loop.call_later(seconds, callback)

    def stop(self) -> None:
        """Cancel the call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _limit_stall(transport: asyncio.Transport, seconds: float) -> None:
    """Make the kernel reset a connection whose client reads nothing for `seconds`."""
    connection = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
    if option is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))

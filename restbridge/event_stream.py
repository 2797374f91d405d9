"""Server-sent events, as OpenAI's SDKs read them.

    data: {"id":"chatcmpl-1", …}      write    one line of JSON each
    : keep-alive                               after each silence
    : charge nano-credits=206000, …            the receipt, before the end or after the error
    data: [DONE]                      finish   the stream is complete
    data: {"error":{ … }}             (`error_middleware`)  it failed: nothing follows, and the
                                               bridge closes the connection without the last chunk

The stream has no `event:` or `retry:` lines, and `id:` lines only if the request has an idempotency
key. OpenAI's SDKs take every blank line after an `id:` for an event, and fail to parse its empty
data. In such a stream, no blank line follows a comment; the comment is a part of the next event.

`open` sends the status line, or the first keep-alive if it comes earlier. There is no queue: a
write returns when the client has read.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from starlette.types import Send

from restbridge.clock import Clock, Timer
from restbridge.http.exchange import Exchange

SILENCE: Final = 15.0
"""Seconds without an event before a comment is sent: well below the idle timeouts of proxies."""

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)

KEEP_ALIVE: Final = b": keep-alive\n\n"
DONE: Final = b"data: [DONE]\n\n"


def event(document: bytes) -> bytes:
    """Frame a JSON document of one line as an event."""
    return b"data: %b\n\n" % document


def identified(document: bytes, id_: str) -> bytes:
    """Frame a JSON document of one line as an event with an id; "" for none."""
    if not id_:
        return event(document)
    return b"id: %b\ndata: %b\n\n" % (id_.encode("ascii"), document)


def receipt(charge: bytes) -> bytes:
    """Frame the receipt of a stream as a comment, which every client ignores.

    Args:
        charge: The value of the header `x-charge`.
    """
    return b": charge %b\n\n" % charge


class EventStream:
    """One response, as a stream of events.

    Args:
        exchange: The exchange of the response.
        send: The ASGI channel.
        clock: The clock of the exchange.
        silence: Seconds of silence before a comment is sent.
        has_ids: Whether each event has an id with which the client can resume the stream.
    """

    def __init__(
        self,
        exchange: Exchange,
        send: Send,
        *,
        clock: Clock,
        silence: float = SILENCE,
        has_ids: bool = False,
    ) -> None:
        self._exchange = exchange
        self.has_ids = has_ids
        self._send = send
        self._clock = clock
        self._silence = silence
        self._last = clock.time()
        self._timer: Timer | None = None
        self._comment: asyncio.Task[None] | None = None
        self.is_open = False
        """Whether the first event has arrived."""

    async def __aenter__(self) -> Self:
        self._timer = self._clock.call_later(self._silence, self._tick)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hush()
        if self._comment is not None:
            self._comment.cancel()
            await asyncio.gather(self._comment, return_exceptions=True)

    async def open(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the status line, unless a keep-alive sent it. Call it for the first event."""
        await self._after_comment()
        if not self._exchange.streams_events:
            await self._begin(headers)
        self.is_open = True
        self._exchange.connection.forget_request()
        self._exchange.first_event = self._clock.time()

    async def write(self, *documents: bytes, ids: Sequence[str] | None = None) -> None:
        """Send several events at once. Return when the client has read enough.

        Args:
            documents: The document of each event.
            ids: The id of each event, "" for none; None for events without ids.
        """
        if self._comment is not None:
            await self._after_comment()
        self._last = self._clock.time()
        self._exchange.events += len(documents)
        framed = map(event, documents) if ids is None else map(identified, documents, ids)
        body = b"".join(framed)
        del documents, framed  # it is in memory once
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        del body
        await self._exchange.connection.drained()

    async def finish(self, before: bytes = b"") -> None:
        """Send `data: [DONE]` and end the stream.

        Args:
            before: What precedes it: the receipt, framed.
        """
        await self._after_comment()
        self._hush()
        body = self._comment_of(before) + DONE
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _comment_of(self, framed: bytes) -> bytes:
        """Return a comment as this stream has it: without its blank line if events have ids."""
        return framed.removesuffix(b"\n") if self.has_ids else framed

    def _hush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]}
        )
        # After the await, the status line is sent, so that a later failure is an event.
        self._exchange.streams_events = True

    def _tick(self) -> None:
        wait = self._last + self._silence - self._clock.time()
        if wait <= 0:
            if self._comment is None:
                self._comment = asyncio.create_task(self._say_nothing())
            wait = self._silence
        self._timer = self._clock.call_later(wait, self._tick)

    async def _say_nothing(self) -> None:
        if not self._exchange.streams_events:
            await self._begin([])
        comment = self._comment_of(KEEP_ALIVE)
        await self._send({"type": "http.response.body", "body": comment, "more_body": True})
        self._last = self._clock.time()
        self._comment = None

    async def _after_comment(self) -> None:
        # A comment that waits for a slow reader goes first, because it can carry the status line.
        if self._comment is not None:
            await self._comment

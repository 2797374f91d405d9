"""Event streams that are wrong between or within their events."""

import json
from collections.abc import Callable

from service.simulator.completion_request import Document
from service.simulator.error_objects import error_body
from service.simulator.exchange import Exchange
from service.simulator.faults.fault import Fault, Play, plays
from service.simulator.streaming import DONE, finish, forever, send_bytes, send_events

_PIECE = 64 * 1024
_MEBIBYTE = 1024 * 1024

_Ending = Callable[[Exchange], None]

_MALFORMED = "malformed JSON event"
_ERROR_EVENT = "error event inside the stream"


FAULTS: list[Fault] = []


def _edited(
    name: str, covers: str, edit: Callable[[list[bytes]], list[bytes]], ending: _Ending = finish
) -> None:
    """Add a fault that changes the payloads of a valid stream, or its end."""

    @plays(FAULTS, name, "stream", covers)
    async def _play(play: Play) -> None:
        payloads = edit(play.payloads())
        play.exchange.head()
        await send_events(play.exchange, payloads, play.delay)
        ending(play.exchange)


def _end(exchange: Exchange) -> None:
    exchange.end()


def _all(payloads: list[bytes]) -> list[bytes]:
    return payloads


def _half(payloads: list[bytes]) -> list[bytes]:
    return payloads[: len(payloads) // 2]


def _without_finish_reason(payloads: list[bytes]) -> list[bytes]:
    chunks: list[Document] = [json.loads(payload) for payload in payloads]
    return [
        payload
        for payload, chunk in zip(payloads, chunks, strict=True)
        if not any(choice["finish_reason"] for choice in chunk["choices"])
    ]


def _malformed(payloads: list[bytes]) -> list[bytes]:
    middle = len(payloads) // 2
    return [*payloads[:middle], payloads[middle][:-7], *payloads[middle + 1 :]]


def _with_error(error: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda payloads: [*_half(payloads), error]


_ERROR = error_body("The server had an error.", kind="server_error", code="server_error")
_INTEGER_CODE = error_body("The engine died.", kind="InternalServerError", code=500)


@plays(FAULTS, "error-event-named", "stream", _ERROR_EVENT)
async def _named_error(play: Play) -> None:
    """Send half of the chunks and an error object in an event named error."""
    play.exchange.head()
    await send_events(play.exchange, _half(play.payloads()), play.delay)
    play.exchange.body(b"event: error\ndata: " + _ERROR + b"\n\n")
    play.exchange.end()


@plays(FAULTS, "hang-after-done", "stream", "never ends after [DONE]")
async def _hang_after_done(play: Play) -> None:
    """Send a valid stream with [DONE] and keep the body open."""
    play.exchange.head()
    await send_events(play.exchange, play.payloads(), play.delay)
    play.exchange.body(DONE)
    await forever()


@plays(FAULTS, "events-after-done", "stream", "events after [DONE]")
async def _events_after_done(play: Play) -> None:
    """Send a chunk after [DONE]."""
    payloads = play.payloads()
    play.exchange.head()
    await send_events(play.exchange, payloads, play.delay)
    play.exchange.body(DONE)
    await send_events(play.exchange, payloads[1:2], play.delay)
    play.exchange.end()


@plays(FAULTS, "huge-event", "stream", "event over 1 MiB")
async def _huge_event(play: Play) -> None:
    """Send a valid event of <value> bytes (2 MiB) in data lines of 1 KB."""
    size = int(play.number(2 * _MEBIBYTE))
    payloads = play.payloads()
    play.exchange.head()
    await send_events(play.exchange, payloads[:1], play.delay)
    # White space is valid between two tokens of JSON; its line ends split the data lines.
    play.exchange.body(b"data: {\n")
    await send_bytes(play.exchange, b"data: " + b" " * 1000 + b"\n", max(1, size // 1007))
    play.exchange.event(payloads[1][1:])
    await send_events(play.exchange, payloads[2:], play.delay)
    finish(play.exchange)


@plays(FAULTS, "huge-line", "stream", "line over 1 MiB")
async def _huge_line(play: Play) -> None:
    """Send a valid event of one line with <value> bytes (2 MiB)."""
    size = int(play.number(2 * _MEBIBYTE))
    payloads = play.payloads()
    play.exchange.head()
    await send_events(play.exchange, payloads[:1], play.delay)
    play.exchange.body(b"data: {")
    await send_bytes(play.exchange, b" " * _PIECE, max(1, size // _PIECE))
    play.exchange.body(payloads[1][1:] + b"\n\n")
    await send_events(play.exchange, payloads[2:], play.delay)
    finish(play.exchange)


@plays(FAULTS, "endless-line", "stream", "line over 1 MiB")
async def _endless_line(play: Play) -> None:
    """Send a line that never ends, as fast as the caller reads."""
    play.exchange.head()
    await send_events(play.exchange, play.payloads()[:1], play.delay)
    play.exchange.body(b"data: {")
    while True:
        await send_bytes(play.exchange, b" " * _PIECE, 16)


@plays(FAULTS, "500-stream", "stream", "error status with a stream")
async def _error_status_stream(play: Play) -> None:
    """Return 500 with an event stream that contains an error object."""
    play.exchange.head(500)
    play.exchange.event(_ERROR)
    finish(play.exchange)


_edited("no-done", "ends without [DONE]", _all, _end)
_edited("no-finish-reason", "ends without a finish_reason", _without_finish_reason)
_edited("clean-end-mid-stream", "ends without [DONE] or a finish_reason", _half, _end)
_edited("empty-stream", "empty stream", lambda _: [], _end)
_edited("done-only", "empty stream", lambda _: [])
_edited("malformed-event", _MALFORMED, _malformed)
_edited("array-event", _MALFORMED, lambda sound: [*sound[:1], b"[1,2]", *sound[1:]])
_edited("deep-event", _MALFORMED, lambda sound: [*sound[:1], b"[" * 100_000 + b"]" * 100_000])
_edited("error-event", _ERROR_EVENT, _with_error(_ERROR), _end)
_edited("error-event-first", _ERROR_EVENT, lambda _: [_ERROR], _end)
_edited("error-event-then-done", _ERROR_EVENT, _with_error(_INTEGER_CODE))
_edited("error-event-text", _ERROR_EVENT, _with_error(b'{"error":"the engine died"}'), _end)

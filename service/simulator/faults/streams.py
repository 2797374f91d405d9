"""Event streams that go wrong between, or in, their events."""

import json
from collections.abc import Callable

from service.simulator.completion_request import Document
from service.simulator.error_objects import error_body
from service.simulator.exchange import Exchange
from service.simulator.faults.fault import Fault, Play
from service.simulator.streaming import DONE, finish, forever, send_bytes, send_events

_PIECE = 64 * 1024
_MEBIBYTE = 1024 * 1024

_Ending = Callable[[Exchange], None]


def _edited(
    name: str,
    covers: str,
    sentence: str,
    edit: Callable[[list[bytes]], list[bytes]],
    ending: _Ending = finish,
) -> Fault:
    """Make a fault that sends other payloads than the sound ones, or another end."""

    async def play(play: Play) -> None:
        payloads = edit(play.payloads())
        play.exchange.head()
        await send_events(play.exchange, payloads, play.delay)
        ending(play.exchange)

    return Fault(name=name, form="stream", covers=covers, sentence=sentence, play=play)


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


async def _named_error(play: Play) -> None:
    play.exchange.head()
    await send_events(play.exchange, _half(play.payloads()), play.delay)
    play.exchange.body(b"event: error\ndata: " + _ERROR + b"\n\n")
    play.exchange.end()


async def _hang_after_done(play: Play) -> None:
    play.exchange.head()
    await send_events(play.exchange, play.payloads(), play.delay)
    play.exchange.body(DONE)
    await forever()


async def _events_after_done(play: Play) -> None:
    payloads = play.payloads()
    play.exchange.head()
    await send_events(play.exchange, payloads, play.delay)
    play.exchange.body(DONE)
    await send_events(play.exchange, payloads[1:2], play.delay)
    play.exchange.end()


async def _huge_event(play: Play) -> None:
    size = int(play.number(2 * _MEBIBYTE))
    payloads = play.payloads()
    play.exchange.head()
    await send_events(play.exchange, payloads[:1], play.delay)
    # White space is legal between two tokens of JSON, and a line end in it divides the data.
    play.exchange.body(b"data: {\n")
    await send_bytes(play.exchange, b"data: " + b" " * 1000 + b"\n", max(1, size // 1007))
    play.exchange.event(payloads[1][1:])
    await send_events(play.exchange, payloads[2:], play.delay)
    finish(play.exchange)


async def _huge_line(play: Play) -> None:
    size = int(play.number(2 * _MEBIBYTE))
    payloads = play.payloads()
    play.exchange.head()
    await send_events(play.exchange, payloads[:1], play.delay)
    play.exchange.body(b"data: {")
    await send_bytes(play.exchange, b" " * _PIECE, max(1, size // _PIECE))
    play.exchange.body(payloads[1][1:] + b"\n\n")
    await send_events(play.exchange, payloads[2:], play.delay)
    finish(play.exchange)


async def _endless_line(play: Play) -> None:
    play.exchange.head()
    await send_events(play.exchange, play.payloads()[:1], play.delay)
    play.exchange.body(b"data: {")
    while True:
        await send_bytes(play.exchange, b" " * _PIECE, 16)


async def _error_status_stream(play: Play) -> None:
    play.exchange.head(500)
    play.exchange.event(_ERROR)
    finish(play.exchange)


FAULTS = (
    _edited(
        "no-done",
        "ends without [DONE]",
        "Sends every chunk, the finish reason too, and ends without [DONE].",
        _all,
        _end,
    ),
    _edited(
        "no-finish-reason",
        "ends without a finish_reason",
        "Leaves out the chunk with the finish reason and ends with [DONE].",
        _without_finish_reason,
    ),
    _edited(
        "clean-end-mid-stream",
        "ends without [DONE] or a finish_reason",
        "Sends half of the chunks and ends the body properly.",
        _half,
        _end,
    ),
    _edited("empty-stream", "empty stream", "Sends no event at all.", lambda _: [], _end),
    _edited("done-only", "empty stream", "Sends [DONE] and nothing else.", lambda _: []),
    _edited(
        "malformed-event",
        "malformed JSON event",
        "Cuts the last bytes off one event's JSON and goes on.",
        _malformed,
    ),
    _edited(
        "array-event",
        "malformed JSON event",
        "Sends an array where a chunk is expected, and goes on.",
        lambda payloads: [*payloads[:1], b"[1,2]", *payloads[1:]],
    ),
    _edited(
        "deep-event",
        "malformed JSON event",
        "Sends an event of 100,000 arrays in one another.",
        lambda payloads: [*payloads[:1], b"[" * 100_000 + b"]" * 100_000],
    ),
    _edited(
        "error-event",
        "error event inside the stream",
        "Sends half of the chunks, an error object, and ends without [DONE].",
        _with_error(_ERROR),
        _end,
    ),
    _edited(
        "error-event-first",
        "error event inside the stream",
        "Sends an error object as the first event.",
        lambda _: [_ERROR],
        _end,
    ),
    _edited(
        "error-event-then-done",
        "error event inside the stream",
        "Sends half of the chunks, an error object whose code is a number, and [DONE].",
        _with_error(_INTEGER_CODE),
    ),
    _edited(
        "error-event-text",
        "error event inside the stream",
        "Sends half of the chunks and an error that is a string.",
        _with_error(b'{"error":"the engine died"}'),
        _end,
    ),
    Fault(
        name="error-event-named",
        form="stream",
        covers="error event inside the stream",
        sentence="Sends half of the chunks and an error object in an event named error.",
        play=_named_error,
    ),
    Fault(
        name="500-stream",
        form="stream",
        covers="error status with a stream",
        sentence="Answers 500 with an event stream that holds an error object.",
        play=_error_status_stream,
    ),
    Fault(
        name="hang-after-done",
        form="stream",
        covers="never ends after [DONE]",
        sentence="Sends a sound stream with [DONE] and keeps the body open.",
        play=_hang_after_done,
    ),
    Fault(
        name="events-after-done",
        form="stream",
        covers="events after [DONE]",
        sentence="Sends a chunk after [DONE].",
        play=_events_after_done,
    ),
    Fault(
        name="huge-event",
        form="stream",
        covers="event over 1 MiB",
        sentence="Sends a valid event of <value> bytes (2 MiB) in data lines of 1 KB.",
        play=_huge_event,
    ),
    Fault(
        name="huge-line",
        form="stream",
        covers="line over 1 MiB",
        sentence="Sends a valid event whose one line has <value> bytes (2 MiB).",
        play=_huge_line,
    ),
    Fault(
        name="endless-line",
        form="stream",
        covers="line over 1 MiB",
        sentence="Sends a line that never ends, as fast as the caller reads.",
        play=_endless_line,
    ),
)

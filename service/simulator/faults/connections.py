"""Connections that hang, drip or break."""

import asyncio

from service.simulator.exchange import JSON, SERVER
from service.simulator.faults.fault import Fault, Play
from service.simulator.response_documents import encode
from service.simulator.streaming import forever, send_events

_HEAD = f"HTTP/1.1 200 OK\r\nserver: {SERVER}\r\n".encode()
_DRIP_SECONDS = 0.05


async def begin(play: Play) -> None:
    """Write and flush half of a sound answer: `value` events, or half of all or of the body."""
    exchange = play.exchange
    if play.request.stream:
        payloads = play.payloads()
        sent = int(play.number(len(payloads) // 2, highest=len(payloads)))
        exchange.head()
        await send_events(exchange, payloads[:sent], play.delay)
    else:
        body = encode(play.document())
        exchange.head(content_type=JSON, length=len(body))
        exchange.body(body[: len(body) // 2])
    await exchange.flush()


async def _hang_before_headers(play: Play) -> None:
    await forever()


async def _close_before_headers(play: Play) -> None:
    play.exchange.hang_up()


async def _reset_before_headers(play: Play) -> None:
    play.exchange.reset()


async def _drip_headers(play: Play) -> None:
    interval = play.number(_DRIP_SECONDS, highest=3600)
    play.exchange.raw(_HEAD + b"x-drip: ")
    while True:
        play.exchange.raw(b"a")
        await play.exchange.drained()
        await asyncio.sleep(interval)


async def _flood_headers(play: Play) -> None:
    play.exchange.raw(_HEAD)
    line = b"x-flood: " + b"a" * 1000 + b"\r\n"
    for _ in range(int(play.number(4096, highest=1_000_000))):
        play.exchange.raw(line)
        await play.exchange.drained()
    play.exchange.raw(b"content-length: 2\r\n\r\n{}")
    await play.exchange.flush()
    play.exchange.hang_up()


async def _no_http(play: Play) -> None:
    play.exchange.raw(b"SSH-2.0-simulator\r\n")
    play.exchange.hang_up()


async def _hang_mid_stream(play: Play) -> None:
    await begin(play)
    await forever()


async def _reset_mid_stream(play: Play) -> None:
    await begin(play)
    play.exchange.reset()


async def _cut_body(play: Play) -> None:
    await begin(play)
    play.exchange.hang_up()


async def _cut_tool_call(play: Play) -> None:
    call_of = [choice.call for choice in play.completion.choices]
    if call_of[0] is None:
        play.refuse("This fault needs a request that forces a tool call.", "tool_choice")
    payloads = play.payloads()
    fragments = len(play.completion.choices[0].tokens)
    play.exchange.head()
    await send_events(play.exchange, payloads[: 1 + (fragments + 1) // 2], play.delay)
    await play.exchange.flush()
    play.exchange.hang_up()


async def _bad_chunking(play: Play) -> None:
    await begin(play)
    play.exchange.raw(b"not a size\r\n")
    await play.exchange.flush()
    play.exchange.hang_up()


async def _overrun(play: Play) -> None:
    body = encode(play.document())
    play.exchange.reply(200, body)
    play.exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


async def _drip_body(play: Play) -> None:
    interval = play.number(_DRIP_SECONDS, highest=3600)
    exchange = play.exchange
    if play.request.stream:
        exchange.head()
        exchange.body(b'data: {"id":"')
        piece = b"a"
    else:
        exchange.head(content_type=JSON)
        piece = b" "
    while True:
        exchange.body(piece)
        await exchange.drained()
        await asyncio.sleep(interval)


async def _drip_comments(play: Play) -> None:
    interval = play.number(_DRIP_SECONDS, highest=3600)
    play.exchange.head()
    while True:
        play.exchange.body(b": keep-alive\n\n")
        await play.exchange.drained()
        await asyncio.sleep(interval)


FAULTS = (
    Fault(
        name="hang-before-headers",
        form="any",
        covers="hangs before headers",
        sentence="Reads the request and never writes a byte.",
        play=_hang_before_headers,
    ),
    Fault(
        name="close-before-headers",
        form="any",
        covers="disconnects before headers",
        sentence="Reads the request and closes the connection.",
        play=_close_before_headers,
    ),
    Fault(
        name="reset-before-headers",
        form="any",
        covers="resets before headers",
        sentence="Reads the request and resets the connection.",
        play=_reset_before_headers,
    ),
    Fault(
        name="drip-headers",
        form="any",
        covers="drips headers",
        sentence="Writes a header one byte every <value> seconds (0.05) and never ends it.",
        play=_drip_headers,
    ),
    Fault(
        name="flood-headers",
        form="any",
        covers="headers without bound",
        sentence="Writes <value> (4096) headers of 1 KB before a tiny body.",
        play=_flood_headers,
    ),
    Fault(
        name="no-http",
        form="any",
        covers="speaks another protocol",
        sentence="Answers with the greeting of another protocol and closes.",
        play=_no_http,
    ),
    Fault(
        name="hang-mid-stream",
        form="any",
        covers="hangs mid-stream",
        sentence="Sends <value> events (half of them; half of a unary body), then nothing more.",
        play=_hang_mid_stream,
    ),
    Fault(
        name="reset-mid-stream",
        form="any",
        covers="resets mid-stream",
        sentence="Sends <value> events (half; half of a unary body), then a TCP reset.",
        play=_reset_mid_stream,
    ),
    Fault(
        name="cut-chunked-body",
        form="stream",
        covers="cuts a chunked body",
        sentence="Sends <value> events (half), then closes without the terminating chunk.",
        play=_cut_body,
    ),
    Fault(
        name="truncated-body",
        form="unary",
        covers="unary: truncated body",
        sentence="Sends half of the bytes that content-length promises, then closes.",
        play=_cut_body,
    ),
    Fault(
        name="cut-tool-call",
        form="stream",
        covers="cuts a tool call",
        sentence="Sends half of a call's argument fragments, then closes without the last chunk.",
        play=_cut_tool_call,
    ),
    Fault(
        name="bad-chunking",
        form="stream",
        covers="invalid chunk size",
        sentence="Sends <value> events (half), then a chunk whose size is no number.",
        play=_bad_chunking,
    ),
    Fault(
        name="body-overrun",
        form="unary",
        covers="bytes after the body",
        sentence="Sends a sound answer and right after it a second one that nobody asked for.",
        play=_overrun,
    ),
    Fault(
        name="drip-body",
        form="any",
        covers="drips the body",
        sentence="Sends a byte of an endless line (unary: of white space) every <value> s (0.05).",
        play=_drip_body,
    ),
    Fault(
        name="drip-comments",
        form="stream",
        covers="drips comments",
        sentence="Sends a keep-alive comment every <value> seconds (0.05) and never an event.",
        play=_drip_comments,
    ),
)

"""Connections that hang, drip or break."""

import asyncio

from service.simulator.exchange import JSON, SERVER
from service.simulator.faults.fault import Fault, Play, plays
from service.simulator.response_documents import encode
from service.simulator.streaming import forever, send_events

_HEAD = f"HTTP/1.1 200 OK\r\nserver: {SERVER}\r\n".encode()
_DRIP_SECONDS = 0.05

FAULTS: list[Fault] = []


async def begin(play: Play) -> None:
    """Write and flush half of a valid response: `value` events, or half of the events or body."""
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


@plays(FAULTS, "hang-before-headers", "any", "hangs before headers")
async def _hang_before_headers(play: Play) -> None:
    """Read the request and never write a byte."""
    await forever()


@plays(FAULTS, "close-before-headers", "any", "disconnects before headers")
async def _close_before_headers(play: Play) -> None:
    """Read the request and close the connection."""
    play.exchange.hang_up()


@plays(FAULTS, "reset-before-headers", "any", "resets before headers")
async def _reset_before_headers(play: Play) -> None:
    """Read the request and reset the connection."""
    play.exchange.reset()


@plays(FAULTS, "drip-headers", "any", "drips headers")
async def _drip_headers(play: Play) -> None:
    """Write a header one byte every <value> seconds (0.05) and never end it."""
    interval = play.number(_DRIP_SECONDS, highest=3600)
    play.exchange.raw(_HEAD + b"x-drip: ")
    while True:
        play.exchange.raw(b"a")
        await play.exchange.drained()
        await asyncio.sleep(interval)


@plays(FAULTS, "flood-headers", "any", "headers without bound")
async def _flood_headers(play: Play) -> None:
    """Write <value> (4096) headers of 1 KB before a tiny body."""
    play.exchange.raw(_HEAD)
    line = b"x-flood: " + b"a" * 1000 + b"\r\n"
    for _ in range(int(play.number(4096, highest=1_000_000))):
        play.exchange.raw(line)
        await play.exchange.drained()
    play.exchange.raw(b"content-length: 2\r\n\r\n{}")
    await play.exchange.flush()
    play.exchange.hang_up()


@plays(FAULTS, "no-http", "any", "speaks another protocol")
async def _no_http(play: Play) -> None:
    """Send the greeting of another protocol and close the connection."""
    play.exchange.raw(b"SSH-2.0-simulator\r\n")
    play.exchange.hang_up()


@plays(FAULTS, "hang-mid-stream", "any", "hangs mid-stream")
async def _hang_mid_stream(play: Play) -> None:
    """Send <value> events (half of them; half of a unary body), then nothing more."""
    await begin(play)
    await forever()


@plays(FAULTS, "reset-mid-stream", "any", "resets mid-stream")
async def _reset_mid_stream(play: Play) -> None:
    """Send <value> events (half; half of a unary body), then a TCP reset."""
    await begin(play)
    play.exchange.reset()


@plays(FAULTS, "cut-chunked-body", "stream", "cuts a chunked body")
@plays(FAULTS, "truncated-body", "unary", "unary: truncated body")
async def _cut_body(play: Play) -> None:
    """Send <value> events (half) or half of the promised bytes, then close without an end."""
    await begin(play)
    play.exchange.hang_up()


@plays(FAULTS, "cut-tool-call", "stream", "cuts a tool call")
async def _cut_tool_call(play: Play) -> None:
    """Send half of a call's argument fragments, then close without the last chunk."""
    call_of = [choice.call for choice in play.completion.choices]
    if call_of[0] is None:
        play.refuse("This fault needs a request that forces a tool call.", "tool_choice")
    payloads = play.payloads()
    fragments = len(play.completion.choices[0].tokens)
    play.exchange.head()
    await send_events(play.exchange, payloads[: 1 + (fragments + 1) // 2], play.delay)
    await play.exchange.flush()
    play.exchange.hang_up()


@plays(FAULTS, "bad-chunking", "stream", "invalid chunk size")
async def _bad_chunking(play: Play) -> None:
    """Send <value> events (half), then a chunk whose size is not a number."""
    await begin(play)
    play.exchange.raw(b"not a size\r\n")
    await play.exchange.flush()
    play.exchange.hang_up()


@plays(FAULTS, "body-overrun", "unary", "bytes after the body")
async def _overrun(play: Play) -> None:
    """Send a valid response, followed by a second, unrequested one."""
    body = encode(play.document())
    play.exchange.reply(200, body)
    play.exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


@plays(FAULTS, "drip-body", "any", "drips the body")
async def _drip_body(play: Play) -> None:
    """Send a byte of an endless line (unary: of white space) every <value> s (0.05)."""
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


@plays(FAULTS, "drip-comments", "stream", "drips comments")
async def _drip_comments(play: Play) -> None:
    """Send a keep-alive comment every <value> seconds (0.05) and never an event."""
    interval = play.number(_DRIP_SECONDS, highest=3600)
    play.exchange.head()
    while True:
        play.exchange.body(b": keep-alive\n\n")
        await play.exchange.drained()
        await asyncio.sleep(interval)

"""Valid responses in unusual forms, which every client must accept."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from service.simulator.completion_request import Document
from service.simulator.exchange import JSON, Exchange
from service.simulator.faults.fault import Fault, Play, plays
from service.simulator.response_documents import encode
from service.simulator.streaming import DONE, finish, send_events

WIDE = "na\u00efve \u6f22\u5b57 \U0001f680"
"""A text with characters of one to four bytes in UTF-8."""
SEPARATORS = "one\u2028two\u2029three\u0085four\u000bfive\u001csix"
"""A text with Unicode's line separators, none of which ends a line of an event stream."""
PIECES = ("\ud83d", "\ude00")
"""Unpaired surrogates: an emoji that an upstream cuts between two chunks."""
VENDOR = {"text": "of a vendor", "big": 2**60, "none": None, "list": [], "object": {}}
"""The member `x_vendor` that `vendor-members` adds to every object."""

_Frame = Callable[[bytes], bytes]


FAULTS: list[Fault] = []


def _framed(name: str, covers: str, frame: _Frame, opening: bytes = b"") -> None:
    """Add a fault that frames each event, including `[DONE]`, with `frame`."""

    @plays(FAULTS, name, "stream", covers)
    async def _play(play: Play) -> None:
        exchange = play.exchange
        exchange.head()
        before = opening
        for payload in play.payloads():
            exchange.record.chunks_sent += 1
            exchange.body(before + frame(payload))
            before = b""
            await exchange.drained()
        exchange.body(frame(b"[DONE]"))
        exchange.end()


def _line_ends(*ends: bytes) -> _Frame:
    """Return a function that frames events with these two line ends."""
    first, second = ends
    return lambda payload: b"data: " + payload + first + second


def _on_two_lines(payload: bytes) -> bytes:
    if payload == b"[DONE]":
        return DONE
    return b"data: {\ndata: " + payload[1:] + b"\n\n"


def _reworded(name: str, covers: str, texts: tuple[str, ...]) -> None:
    """Add a fault whose first texts are these, as plain UTF-8 if possible."""

    @plays(FAULTS, name, "any", covers)
    async def _play(play: Play) -> None:
        exchange = play.exchange
        if not play.request.stream:
            document = play.document()
            document["choices"][0]["message"]["content"] = texts[0]
            exchange.reply(200, encode(document))
            return
        exchange.head()
        await send_events(exchange, map(encode, _with_texts(play.chunks(), texts)), play.delay)
        finish(exchange)


def _with_texts(chunks: list[Document], texts: tuple[str, ...]) -> Iterator[Document]:
    """Replace the first contents of choice 0 in the chunks."""
    waiting = list(texts)
    for chunk in chunks:
        for choice in chunk["choices"]:
            if waiting and choice["index"] == 0 and choice["delta"].get("content"):
                choice["delta"]["content"] = waiting.pop(0)
        yield chunk


@plays(FAULTS, "one-byte-writes", "any", "one-byte chunks")
async def _one_byte_writes(play: Play) -> None:
    """Write every byte of the body as a separate HTTP chunk in a separate TCP write."""
    if play.request.stream:
        play.exchange.head()
        whole = b"".join(b"data: %b\n\n" % payload for payload in play.payloads()) + DONE
    else:
        play.exchange.head(content_type=JSON)
        whole = encode(play.document())
    await play.exchange.flush()
    for byte in whole:
        await _write_alone(play.exchange, bytes((byte,)))
    play.exchange.end()


async def _write_alone(exchange: Exchange, piece: bytes) -> None:
    """Write one HTTP chunk and wait until the operating system has it."""
    exchange.body(piece)
    await exchange.flush()


def _split(name: str, covers: str, cuts: Callable[[bytes], Iterator[int]]) -> None:
    """Add a fault that splits each event at the offsets that `cuts` yields."""

    @plays(FAULTS, name, "stream", covers)
    async def _play(play: Play) -> None:
        exchange = play.exchange
        exchange.head()
        chunks = play.chunks()
        for chunk in _with_texts(chunks, (WIDE,) * len(chunks)):
            event = b"data: %b\n\n" % encode(chunk)
            start = 0
            for cut in [*cuts(event), len(event)]:
                await _write_alone(exchange, event[start:cut])
                start = cut
            exchange.record.chunks_sent += 1
        finish(exchange)


def _inside_characters(event: bytes) -> Iterator[int]:
    """Yield the offsets within characters."""
    return (place for place, byte in enumerate(event) if byte & 0xC0 == 0x80)


def _inside_fields(event: bytes) -> Iterator[int]:
    """Yield the offsets within and after "data:", and between the two line ends."""
    return iter((2, 5, 6, len(event) - 2, len(event) - 1))


@plays(FAULTS, "vendor-members", "any", "vendor members")
async def _vendor_members(play: Play) -> None:
    """Add a vendor's member to every object of a valid response."""
    if not play.request.stream:
        play.exchange.reply(200, encode(_extended(play.document())))
        return
    play.exchange.head()
    payloads = (encode(_extended(chunk)) for chunk in play.chunks())
    await send_events(play.exchange, payloads, play.delay)
    finish(play.exchange)


def _extended(value: Any) -> Any:
    """Return a document with a vendor's member in every object."""
    if isinstance(value, dict):
        return {**{name: _extended(member) for name, member in value.items()}, "x_vendor": VENDOR}
    return [_extended(item) for item in value] if isinstance(value, list) else value


@plays(FAULTS, "escaped-json", "any", "JSON with escapes and spaces")
async def _escaped(play: Play) -> None:
    """Write JSON with white space and with every non-ASCII character escaped."""
    if not play.request.stream:
        document = play.document()
        document["choices"][0]["message"]["content"] = WIDE
        play.exchange.reply(200, json.dumps(document, indent=2).encode())
        return
    play.exchange.head()
    chunks = _with_texts(play.chunks(), (WIDE,))
    await send_events(play.exchange, (json.dumps(c).encode() for c in chunks), play.delay)
    finish(play.exchange)


@plays(FAULTS, "untyped-stream", "stream", "another content type")
async def _untyped_stream(play: Play) -> None:
    """Send a valid event stream with the content type text/plain."""
    play.exchange.head(content_type="text/plain")
    await send_events(play.exchange, play.payloads(), play.delay)
    finish(play.exchange)


_split("split-utf8", "splits inside UTF-8", _inside_characters)
_split("split-data", "splits inside data:", _inside_fields)
_framed("crlf", "CRLF line ends", _line_ends(b"\r\n", b"\r\n"))
_framed("cr-only", "CR-only line ends", _line_ends(b"\r", b"\r"))
_framed("mixed-line-ends", "CRLF line ends", _line_ends(b"\r\n", b"\r"))
_framed("multi-line-data", "multi-line data", _on_two_lines)
_framed("bom", "byte-order mark", _line_ends(b"\n", b"\n"), opening=b"\xef\xbb\xbf")
_framed("no-space", "data: without a space", lambda payload: b"data:" + payload + b"\n\n")
_framed("blank-lines", "blank lines", lambda payload: b"\n\n\ndata: " + payload + b"\n\n\n")
_framed(
    "comments",
    "comments",
    lambda payload: b": before\n:\ndata: " + payload + b"\n: inside\n\n: between\n\n",
)
_framed(
    "other-fields",
    "other fields",
    lambda payload: b"event: message\nid: 7\nretry: 10\nx: y\ndata: " + payload + b"\n\n",
)
_reworded("unicode-separators", "U+2028 in content", (SEPARATORS,))
_reworded("lone-surrogates", "lone surrogates", PIECES)

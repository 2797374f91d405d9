import sys
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.upstream.sse import EventParser, EventTooLargeError
from tests.support.examples import examples

Event = tuple[bytes, bytes]

STREAMS: dict[str, tuple[bytes, list[Event]]] = {
    "one event": (b"data: a\n\n", [(b"", b"a")]),
    "two events": (b"data: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
    "no space after the colon": (b"data:a\n\n", [(b"", b"a")]),
    "one space of two": (b"data:  a\n\n", [(b"", b" a")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"", b"a"), (b"", b"b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
    "mixed line ends": (
        b"data: a\r\n\ndata: b\n\r\ndata: c\r\n\r",
        [(b"", b"a"), (b"", b"b"), (b"", b"c")],
    ),
    "CR then LF is one end": (b"data: a\r\ndata: b\r\n\r\n", [(b"", b"a\nb")]),
    "byte-order mark": (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
    "byte-order mark alone on its line": (b"\xef\xbb\xbf\ndata: a\n\n", [(b"", b"a")]),
    "byte-order mark before a comment": (b"\xef\xbb\xbf: hi\ndata: a\n\n", [(b"", b"a")]),
    "second byte-order mark": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "late byte-order mark": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),
    "byte-order mark after an empty line": (b"\n\xef\xbb\xbfdata: a\n\n", []),
    "half a byte-order mark": (b"\xef\xbbdata: a\n\n", []),
    "comment": (b": keep-alive\n\ndata: a\n\n", [(b"", b"a")]),
    "comment within an event": (b"data: a\n: x\ndata: b\n\n", [(b"", b"a\nb")]),
    "comment that looks like data": (b":data: a\n\n", []),
    "empty comment": (b":\n:\ndata: a\n\n", [(b"", b"a")]),
    "multi-line data": (b'data: {"a":\ndata: 1}\n\n', [(b"", b'{"a":\n1}')]),
    "a line that begins behind a line": (
        b"data: a\n\ndata: b\ndata: c\n\n",
        [(b"", b"a"), (b"", b"b\nc")],
    ),
    "empty data": (b"data:\n\n", [(b"", b"")]),
    "data without a colon": (b"data\n\n", [(b"", b"")]),
    "empty lines of data": (b"data\ndata:\ndata: \n\n", [(b"", b"\n\n")]),
    "colons in data": (b"data: a:b: c\n\n", [(b"", b"a:b: c")]),
    "name": (b"event: error\ndata: a\n\n", [(b"error", b"a")]),
    "name after the data": (b"data: a\nevent: error\n\n", [(b"error", b"a")]),
    "the last name counts": (b"event: x\nevent:y\ndata: a\n\n", [(b"y", b"a")]),
    "a name holds for one event": (
        b"event: x\ndata: a\n\ndata: b\n\n",
        [(b"x", b"a"), (b"", b"b")],
    ),
    "a name without data": (b"event: ping\n\ndata: a\n\n", [(b"", b"a")]),
    "a name without a value": (b"event: x\nevent\ndata: a\n\n", [(b"", b"a")]),
    "id and retry": (b"id: 1\nretry: 5\ndata: a\n\n", [(b"", b"a")]),
    "unknown fields": (b"Data: x\n data: y\ndatum: z\ndata : w\ndata: a\n\n", [(b"", b"a")]),
    "U+2028, U+2029, U+0085, U+000B, U+000C": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\n\n".encode(),
        [(b"", "a\u2028b\u2029c\x85d\x0be\x0cf".encode())],
    ),
    "four bytes of UTF-8": ("data: 😀\n\n".encode(), [(b"", "😀".encode())]),
    "not UTF-8": (b"data: \xff\xfe\n\n", [(b"", b"\xff\xfe")]),
    "NUL": (b"data: \x00\n\n", [(b"", b"\x00")]),
    "nothing": (b"", []),
    "empty lines": (b"\n\r\n\r\n\n", []),
    "left over: no empty line": (b"data: a\n\ndata: b\n", [(b"", b"a")]),
    "left over: no line end": (b"data: a\n\ndata: b", [(b"", b"a")]),
    "left over: half a name": (b"data: a\n\nda", [(b"", b"a")]),
    "left over: an empty line that is half": (b"data: a\r\n\r", [(b"", b"a")]),
}


LAST: dict[str, tuple[bytes, list[Event]]] = {
    # What a stream ends with, and the event that its end completes.
    "nothing": (b"", []),
    "an empty line": (b"data: a\n\n", []),
    "no empty line": (b"data: a\n", [(b"", b"a")]),
    "no empty line, CRLF": (b"data: a\r\n", [(b"", b"a")]),
    "no empty line, CR": (b"data: a\r", [(b"", b"a")]),
    "no line end": (b"data: a", [(b"", b"a")]),
    "no line end, after a line of data": (b"data: a\ndata: b", [(b"", b"a\nb")]),
    "no line end, after a name": (b"event: x\ndata: a", [(b"x", b"a")]),
    "no line end, after another event": (b"data: a\n\ndata: b", [(b"", b"b")]),
    "no line end, after a byte-order mark": (b"\xef\xbb\xbfdata: a", [(b"", b"a")]),
    "a late byte-order mark": (b"\n\xef\xbb\xbfdata: a", []),
    "a name": (b"event: x\n", []),
    "half a name": (b"data: a\nda", [(b"", b"a")]),
    "a comment": (b"data: a\n\n: hi", []),
}


@pytest.mark.parametrize("name", LAST)
def test_the_end_of_a_stream_completes_its_last_event_however_it_is_cut(name: str) -> None:
    data, events = LAST[name]

    for at in range(len(data) + 1):
        stream = EventParser(100)
        before = [*stream.feed(data[:at]), *stream.feed(data[at:])]
        assert before == oracle(data)
        assert stream.finish() == events


def test_the_last_event_is_bounded() -> None:
    stream = EventParser(LIMIT)
    stream.feed(b"data: " + b"x" * 20 + b"\ndata: " + b"x" * 20)
    with pytest.raises(EventTooLargeError):
        stream.finish()


def parse(pieces: list[bytes], max_event_bytes: int = 2**20) -> list[Event]:
    stream = EventParser(max_event_bytes)
    return [event for piece in pieces for event in stream.feed(piece)]


def oracle(data: bytes) -> list[Event]:
    """Parse a whole stream character by character, following section 9.2.6 of the standard."""
    text = data.decode("latin-1")
    text = text.removeprefix("\xef\xbb\xbf")
    lines, line, at = [], "", 0
    while at < len(text):
        if text[at] in "\r\n":
            at += 2 if text[at : at + 2] == "\r\n" else 1
            lines.append(line)
            line = ""
        else:
            line += text[at]
            at += 1
    events = []
    buffer, kind = "", ""
    for line in lines:
        if line == "":
            if buffer != "":
                events.append((kind.encode("latin-1"), buffer[:-1].encode("latin-1")))
            buffer, kind = "", ""
            continue
        if line[0] == ":":
            continue
        field, colon, value = line.partition(":")
        if colon and value[:1] == " ":
            value = value[1:]
        if field == "event":
            kind = value
        elif field == "data":
            buffer += value + "\n"
    return events


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_gives_its_events(name: str) -> None:
    data, events = STREAMS[name]

    assert parse([data]) == events
    assert oracle(data) == events


@pytest.mark.parametrize("name", STREAMS)
def test_it_does_not_matter_where_a_stream_is_cut(name: str) -> None:
    data, events = STREAMS[name]

    for at in range(len(data) + 1):
        assert parse([data[:at], data[at:]]) == events
        for also in range(at, len(data) + 1):
            assert parse([data[:at], data[at:also], b"", data[also:]]) == events
    assert parse([data[at : at + 1] for at in range(len(data))]) == events


FRAGMENTS = st.sampled_from(
    [
        *(b"data", b"data:", b"data: ", b"event: ", b"event", b"id: 1", b"retry: 1", b": c", b":"),
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b" ", b"a", b"{}", b"[DONE]"),
        *(b"\xef\xbb\xbf", b"\xef", "\u2028".encode(), "é".encode(), b"\x00"),
    ]
)


@examples(300)
@given(st.lists(FRAGMENTS, max_size=24).map(b"".join), st.lists(st.integers(0, 60), max_size=6))
@example(b"data: a\r", [7, 8])
def test_any_stream_however_cut_gives_what_the_standard_says(data: bytes, cuts: list[int]) -> None:
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    pieces = [data[begin:end] for begin, end in pairwise(places)]

    assert parse(pieces) == oracle(data)


LIMIT = 32
TOO_LARGE: dict[str, bytes] = {
    "a line that does not end": b"data: " + b"x" * (LIMIT - 5),
    "a line of data": b"data: " + b"x" * (LIMIT - 5) + b"\n\n",
    "a comment": b":" + b"x" * LIMIT + b"\n\n",
    "an unknown field": b"x" * (LIMIT + 1) + b"\n",
    "many lines of data": b"data: xxx\n" * (LIMIT // 4 + 1),
    "many empty lines of data": b"data\n" * (LIMIT + 1),
    "a second event": b"data: a\n\ndata: " + b"x" * LIMIT + b"\n\n",
}
JUST_SMALL_ENOUGH: dict[str, bytes] = {
    "a line that does not end": b"data: " + b"x" * (LIMIT - 6),
    "a line of data": b"data: " + b"x" * (LIMIT - 6) + b"\n\n",
    "a comment": b":" + b"x" * (LIMIT - 1) + b"\n\n",
    "many lines of data": b"data: xxx\n" * (LIMIT // 4) + b"\n",
    "many events": b"data: xxxxxxxxxxxxxxx\n\n" * 20,
    "many comments": b": xxxxxxxxxxxxxxx\n" * 20,
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_is_refused_however_it_is_cut(name: str) -> None:
    data = TOO_LARGE[name]

    for at in range(len(data) + 1):
        with pytest.raises(EventTooLargeError):
            parse([data[:at], data[at:]], max_event_bytes=LIMIT)
    with pytest.raises(EventTooLargeError):
        parse([data[at : at + 1] for at in range(len(data))], max_event_bytes=LIMIT)


@pytest.mark.parametrize("name", JUST_SMALL_ENOUGH)
def test_what_is_just_small_enough_passes_however_it_is_cut(name: str) -> None:
    data = JUST_SMALL_ENOUGH[name]
    events = oracle(data)

    for at in range(len(data) + 1):
        assert parse([data[:at], data[at:]], max_event_bytes=LIMIT) == events


def work(data: bytes, size: int) -> int:
    """Return the work on a stream fed in pieces of a size: each line of code that the parser runs,
    and with it each byte of the data that this line can look at or copy."""
    stream = EventParser(2**20)
    done = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal done
        if event == "line":
            at_hand = frame.f_locals.get("data")
            done += 1 + (len(at_hand) if isinstance(at_hand, bytes) else 0)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for at in range(0, len(data), size):
            stream.feed(data[at : at + size])
    finally:
        sys.settrace(before)
    return done


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize(
    "shape", ["one long line", "many lines of an event", "many events", "many comments"]
)
def test_the_cost_grows_with_the_bytes_only(shape: str, size: int) -> None:
    def stream(n: int) -> bytes:
        return {
            "one long line": b"data: " + b"x" * (16 * n) + b"\n\n",
            "many lines of an event": b"data: xxxxxxxxx\n" * n + b"\n",
            "many events": b"data: xxxxxxxx\n\n" * n,
            "many comments": b":\n\n" * n,
        }[shape]

    small, large = work(stream(500), size), work(stream(2000), size)

    assert large < 4.2 * small + 10 * size

"""Responses that OpenAI's SDKs read although their heads, bytes or errors are odd."""

import json
from collections.abc import Mapping
from typing import Final

import pytest

from tests.support.odd_answers import (
    BOM,
    DONE,
    FALSY,
    INVALID,
    LARGE,
    LATIN,
    PARTIAL,
    PIECES,
    REPORT,
    STOP,
    STREAM,
    TRUNCATED,
    TWO,
    WHOLE,
    Row,
    Used,
    both,
    check,
    chunk,
    event,
    failing_choice,
    fails,
    numbers,
    stream,
    unary,
    whole,
)

KINDS: Final[Mapping[str, tuple[Row, ...]]] = {
    "content type": (
        *both("none", kind=None),
        *both("application/json", kind="application/json"),
        *both("text/plain", kind="text/plain; charset=utf-8"),
        *both("text/html", kind="text/html"),
        *both("application/x-ndjson", kind="application/x-ndjson"),
        *both("of a stream", kind="text/event-stream"),
        *both("no type at all", kind="?"),
        fails(stream, "HTML", b"<html>Hello.</html>", code=INVALID),
        fails(stream, "a whole answer", WHOLE, code=INVALID),
        fails(unary, "a stream", *STREAM, code=INVALID),
    ),
    "status": (
        *(row for status in (201, 202, 203, 206, 299) for row in both(f"{status}", status=status)),
        fails(unary, "204", code=INVALID, response={"status": 204, "framing": "close"}),
        fails(unary, "302", WHOLE, code=INVALID, response={"status": 302}),
    ),
    "content encoding": (
        *both("none", coding="none"),
        *both("utf-8", coding="utf-8"),
        *both("UTF-8", coding="UTF-8"),
        *both("empty", coding=""),
        *both("identity twice", coding="identity, identity"),
        *both("identity", coding="Identity"),
        *(
            fails(make, coding, *body, code=INVALID, response={"coding": coding})
            for coding in ("gzip", "br", "identity, gzip", "utf-16")
            for make, body in ((stream, STREAM), (unary, (WHOLE,)))
        ),
    ),
    "end of the last event": (
        *(
            stream(f"{ending!r}, {framing}", *STREAM[:-1], ending, response={"framing": framing})
            for framing in ("chunked", "length", "close")
            for ending in (
                b"data: [DONE]",
                b"data: [DONE]\n",
                b"data:[DONE]\r\n",
                b"data: [DONE]\r",
            )
        ),
        stream("a report", *PIECES, STOP, REPORT[:-1]),
        stream("the last choice", *PIECES, REPORT, STOP[:-2], used=Used()),
        fails(
            stream,
            "half a report",
            *(*PIECES, STOP, REPORT[:-9]),
            code=TRUNCATED,
            text="Blue whale",
            used=PARTIAL,
        ),
        fails(
            stream,
            "half of [DONE]",
            *PIECES,
            STOP,
            REPORT,
            b"data: [DO",
            code=TRUNCATED,
            text="Blue whale",
            used=Used(partial=True),
        ),
        fails(
            stream, "an error", b'data: {"error":{"message":"x","code":500}}', code="upstream_error"
        ),
    ),
    "byte-order mark": (
        stream("before events", BOM, *STREAM),
        stream("of one write", BOM + b"".join(STREAM)),
        stream("in halves", BOM[:1], BOM[1:2], BOM[2:] + STREAM[0], *STREAM[1:]),
        stream("before a comment", BOM + b": hi\n\n", *STREAM),
        unary("before JSON", BOM + WHOLE),
        unary("before JSON, in halves", BOM[:2], BOM[2:], WHOLE, response={"framing": "chunked"}),
        unary("before JSON with empty lines", BOM + b"\r\n\n" + WHOLE),
        fails(
            stream,
            "before a bare error",
            BOM + b'{"error":{"message":"x","code":429}}',
            code="upstream_rate_limited",
        ),
    ),
    "size of an event": (
        stream(
            "in one line",
            *(event(chunk(LARGE)), STOP, REPORT, DONE),
            text=LARGE,
        ),
        stream(
            "in many lines",
            b"".join(
                b"data: %b\n" % b for b in json.dumps(chunk(LARGE), indent=1).encode().split(b"\n")
            ),
            b"\n",
            *(STOP, REPORT, DONE),
            text=LARGE,
        ),
        stream(
            "in the last event",
            *(*PIECES, STOP, REPORT, event(chunk(None, x=LARGE))[:-2]),
        ),
        fails(stream, "too large", event(chunk(LARGE * 2)), code=INVALID),
        fails(
            stream,
            "too large after some text",
            *PIECES,
            event(chunk(LARGE * 2)),
            code=INVALID,
            text="Blue whale",
            used=PARTIAL,
        ),
    ),
    "no error": (
        *(
            row
            for none in FALSY
            for row in (
                unary(f"{none!r}", json.dumps(whole(error=none)).encode()),
                stream(f"{none!r}", event(chunk("Blue", error=none)), *STREAM[1:]),
            )
        ),
        *(
            row
            for some in ("Broke.", {"message": "Broke."}, True)
            for row in (
                fails(
                    unary,
                    f"{some!r}",
                    json.dumps(whole(error=some)).encode(),
                    code="upstream_error",
                ),
                fails(
                    stream,
                    f"{some!r}",
                    event(chunk("Blue", error=some)),
                    DONE,
                    code="upstream_error",
                ),
            )
        ),
    ),
    "finish_reason error": (
        fails(
            unary,
            "alone",
            json.dumps(whole(choices=failing_choice("error"))).encode(),
            code="upstream_error",
        ),
        fails(
            unary,
            "of one of two",
            json.dumps(whole(choices=failing_choice("stop", "error"))).encode(),
            code="upstream_error",
            request=TWO,
        ),
        fails(
            unary,
            "with an error",
            json.dumps(whole(choices=failing_choice("error"), error={"code": 429})).encode(),
            code="upstream_rate_limited",
        ),
        fails(stream, "first", event(chunk("", "error")), DONE, code="upstream_error"),
        fails(
            stream,
            "after some text",
            *PIECES,
            event(chunk("", "error")),
            DONE,
            code="upstream_error",
            text="Blue whale",
            used=PARTIAL,
        ),
        fails(
            stream,
            "beside text",
            PIECES[0],
            event(chunk("?", "error")),
            DONE,
            code="upstream_error",
            text="Blue",
            used=Used(completion=1, estimated=True, partial=True),
        ),
        fails(
            stream,
            "with an error",
            *(*PIECES, event(chunk("", "error", error={"code": 502, "message": "Lost."})), DONE),
            code="upstream_error",
            text="Blue whale",
            used=PARTIAL,
        ),
    ),
    "bytes and numbers": (
        unary("Latin-1", LATIN, text="Bl\ufffde whale"),
        unary("NaN", json.dumps(whole(choices=numbers(float("nan")))).encode()),
        unary("-Infinity", json.dumps(whole(choices=numbers(float("-inf")))).encode()),
        stream(
            "Latin-1", PIECES[0].replace(b"Blue", b"Bl\xfce"), *STREAM[1:], text="Bl\ufffde whale"
        ),
        stream(
            "half a character",
            event(chunk("?")).replace(b"?", b"Blue\xf0\x9f"),
            *STREAM[1:],
            text="Blue\ufffd whale",
        ),
        stream("NaN", event(chunk("Blue", x=float("nan"))), *STREAM[1:]),
        stream("Infinity", event(chunk("Blue", x=[float("inf")])), *STREAM[1:]),
        fails(unary, "neither", b'{"choices": nan}', code=INVALID),
        fails(stream, "neither", event(b"{nan}"), code=INVALID),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_odd_answer_is_what_it_says(kind: str) -> None:
    await check(KINDS[kind])

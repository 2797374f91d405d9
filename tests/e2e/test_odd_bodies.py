"""Responses that OpenAI's SDKs read although their heads, bytes or errors are odd."""

import json
from collections.abc import Mapping
from typing import Any, Final

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


def erring(error: Any) -> list[dict[str, Any]]:
    """Return the choices of a whole answer, with an error in the choice."""
    return [{**whole()["choices"][0], "error": error}]


def erring_chunk(text: str, error: Any) -> dict[str, Any]:
    """Return a chunk with an error in its choice."""
    made = chunk(text)
    return {**made, "choices": [{**made["choices"][0], "error": error}]}


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
    "headers": (
        *both("9,000 bytes", headers=[b"content-security-policy: " + b"a" * 9000]),
        *both("60,000 bytes", headers=[b"x-a: " + b"a" * 60_000]),
        *both("60,000 bytes in six", headers=[b"x-%d: " % n + b"a" * 10_000 for n in range(6)]),
        *both("150", headers=[b"x-%d: value" % n for n in range(150)]),
        *both("990", headers=[b"x-%d: value" % n for n in range(990)]),
        *both("990 of one name", headers=[b"set-cookie: a=b"] * 990),
        *both("without a value", headers=[b"x-a:", b"x-b: "]),
        *both("bytes that are no text", headers=[b"x-a: caf\xe9 \xf0\x9f"]),
        *(
            fails(make, name, *body, code=INVALID, response={"headers": headers})
            for name, headers in (
                ("66,000 bytes", [b"x-a: " + b"a" * 66_000]),
                ("1,001", [b"x-a: b"] * 1001),
            )
            for make, body in ((stream, STREAM), (unary, (WHOLE,)))
        ),
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
    "error in a choice": (
        *(
            row
            for none in FALSY
            for row in (
                unary(f"{none!r}", json.dumps(whole(choices=erring(none))).encode()),
                stream(f"{none!r}", event(erring_chunk("Blue", none)), *STREAM[1:]),
            )
        ),
        *(
            row
            for some, code in (
                ({"code": 502, "message": "Idle."}, "upstream_error"),
                ({"code": 429, "message": "Slow."}, "upstream_rate_limited"),
                ({"code": 503, "message": "Busy."}, "upstream_unavailable"),
                ({"message": "Broke."}, "upstream_error"),
                ("Broke.", "upstream_error"),
            )
            for row in (
                fails(
                    unary, f"{some!r}", json.dumps(whole(choices=erring(some))).encode(), code=code
                ),
                fails(stream, f"{some!r}", event(erring_chunk("", some)), DONE, code=code),
                fails(
                    stream,
                    f"{some!r} after some text",
                    *(*PIECES, event(erring_chunk("", some)), DONE),
                    code=code,
                    text="Blue whale",
                    used=PARTIAL,
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

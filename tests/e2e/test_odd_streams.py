"""Responses that OpenAI's SDKs read although their ends, choices or usage are odd."""

import json
from collections.abc import Mapping
from typing import Final

import pytest

from tests.support.odd_answers import (
    ASKED,
    COUNTED,
    DONE,
    FILTERED,
    INVALID,
    PARTIAL,
    PIECES,
    REPORT,
    STOP,
    STREAM,
    TRUNCATED,
    TWO,
    Row,
    Used,
    check,
    chunk,
    event,
    fails,
    report,
    stream,
    unary,
    usage,
    whole,
)

KINDS: Final[Mapping[str, tuple[Row, ...]]] = {
    "end of a stream": (
        stream("no [DONE]", *STREAM[:-1]),
        stream(
            "no [DONE], by the end of the connection", *STREAM[:-1], response={"framing": "close"}
        ),
        stream("no [DONE], by its length", *STREAM[:-1], response={"framing": "length"}),
        stream("no [DONE] and no report", *PIECES, STOP, used=COUNTED),
        stream("no finish_reason", *PIECES, REPORT, DONE),
        stream("no finish_reason and no report", *PIECES, DONE, used=COUNTED),
        stream(
            "finishReason",
            PIECES[0],
            event(chunk(" whale", None, finishReason="stop")),
            REPORT,
            DONE,
        ),
        stream("an empty finish_reason", PIECES[0], event(chunk(" whale", "")), REPORT, DONE),
        stream(
            "two choices, one finished",
            *PIECES,
            event(chunk("!", index=1)),
            STOP,
            DONE,
            request=TWO,
            text="Blue whale!",
            used=Used(completion=3, estimated=True),
        ),
        fails(
            stream,
            "two choices, one finished, no [DONE]",
            *PIECES,
            event(chunk("!", index=1)),
            STOP,
            code=TRUNCATED,
            request=TWO,
            text="Blue whale!",
            used=Used(completion=3, estimated=True, partial=True),
        ),
        fails(stream, "neither", *PIECES, code=TRUNCATED, text="Blue whale", used=PARTIAL),
        fails(stream, "[DONE] alone", DONE, code=TRUNCATED),
        fails(stream, "[DONE] after a report", REPORT, DONE, code=TRUNCATED),
        fails(stream, "no bytes", code=TRUNCATED),
        *(
            fails(
                stream,
                f"cut before [DONE], {framing}",
                *STREAM[:-1],
                code=TRUNCATED,
                text="Blue whale",
                used=Used(partial=True),
                response={"framing": framing, "cut": True},
            )
            for framing in ("chunked", "length")
        ),
    ),
    "empty events": (
        *(
            stream(f"{blank!r}", blank, PIECES[0], blank, *STREAM[1:-1], blank, DONE)
            for blank in (
                b"data:\n\n",
                b"data: \n\n",
                b"data:   \n\n",
                b"data\n\n",
                b"data:\ndata:\n\n",
            )
        ),
        stream("named", b"event: ping\ndata:\n\n", *STREAM),
        stream("at the end", *STREAM[:-1], b"data:"),
        fails(stream, "alone", b"data:\n\n" * 3, code=TRUNCATED),
        fails(stream, "an error", b"event: error\ndata:\n\n", code=INVALID),
    ),
    "strict end of a stream": (
        stream("both", *STREAM, strict=True),
        stream("both, without the empty line", *STREAM[:-1], DONE[:-2], strict=True),
        stream(
            "an index that wanders",
            PIECES[0],
            event(chunk(" whale", index=1)),
            event(chunk(None, "stop", index=2)),
            REPORT,
            DONE,
            strict=True,
        ),
        fails(
            stream,
            "no [DONE]",
            *STREAM[:-1],
            code=TRUNCATED,
            strict=True,
            text="Blue whale",
            used=Used(partial=True),
        ),
        fails(
            stream,
            "no finish_reason",
            *PIECES,
            REPORT,
            DONE,
            code=TRUNCATED,
            strict=True,
            text="Blue whale",
            used=Used(partial=True),
        ),
        fails(
            stream, "neither", *PIECES, code=TRUNCATED, strict=True, text="Blue whale", used=PARTIAL
        ),
    ),
    "index of a choice": (
        stream(
            "counts the pieces",
            PIECES[0],
            event(chunk(" whale", index=1)),
            event(chunk(None, "stop", index=2)),
            REPORT,
            DONE,
        ),
        stream(
            "counts the pieces, without a report",
            event(chunk("Blue", index=1)),
            event(chunk(" whale", "length", index=2)),
            DONE,
            used=COUNTED,
        ),
        stream(
            "counts the pieces, with a report beside the last",
            event(chunk("Blue", index=1)),
            event(chunk(" whale", "length", index=2, usage=usage(completion_tokens=7))),
            DONE,
            used=Used(completion=7),
        ),
        stream(
            "of the parts",
            event(chunk("Blue")),
            event(chunk(" whale", index=1)),
            event(chunk(None, "stop", index=0)),
            REPORT,
        ),
        stream(
            "begins at one",
            event(chunk("Blue", index=1)),
            event(chunk(" whale", index=1)),
            event(chunk(None, "stop")),
            REPORT,
        ),
        stream(
            "n is 1",
            PIECES[0],
            event(chunk(" whale", index=9)),
            event(chunk(None, "stop", index=3)),
            REPORT,
            request={"n": 1},
        ),
    ),
    "report": (
        stream(
            "not asked for, beside timings",
            *PIECES,
            STOP,
            event(report(timings={"n": 2})),
            DONE,
            timings=1,
        ),
        stream(
            "not asked for, beside timings as before",
            event(chunk("Blue", timings=1)),
            PIECES[1],
            STOP,
            event(report(timings={"n": 2})),
            DONE,
            timings=1,
        ),
        stream(
            "not asked for, beside the last choice",
            *PIECES,
            event(chunk(None, "stop", usage=usage())),
            DONE,
        ),
        stream(
            "not asked for, in each chunk",
            event(chunk("Blue", usage=usage(completion_tokens=1))),
            event(chunk(" whale", "stop", usage=usage())),
            DONE,
        ),
        stream(
            "asked for, beside timings",
            *PIECES,
            STOP,
            event(report(timings=1)),
            DONE,
            request=ASKED,
            usages=(usage(),),
            timings=1,
        ),
        *(
            row
            for name, counts, used in (
                (
                    "without completion_tokens",
                    {"prompt_tokens": 11, "total_tokens": 40},
                    Used(completion=29),
                ),
                (
                    "with null completion_tokens",
                    {"prompt_tokens": 11, "completion_tokens": None, "total_tokens": 13},
                    Used(),
                ),
                ("of a prompt alone", {"prompt_tokens": 11, "total_tokens": 11}, COUNTED),
                ("of text", usage(completion_tokens="2"), COUNTED),
            )
            for row in (
                stream(
                    name,
                    *PIECES,
                    STOP,
                    event(report(usage=counts)),
                    DONE,
                    request=ASKED,
                    usages=(counts,),
                    used=used,
                ),
                unary(
                    name,
                    json.dumps(whole(usage=counts)).encode(),
                    usages=(counts,),
                    used=used if used is not COUNTED else Used(completion=3, estimated=True),
                ),
            )
        ),
        unary(
            "of a prompt alone, without text",
            b'{"choices":[{"index":0,"finish_reason":"length"}],'
            b'"usage":{"prompt_tokens":11,"total_tokens":11}}',
            text="",
            usages=({"prompt_tokens": 11, "total_tokens": 11},),
            used=Used(completion=0),
        ),
    ),
    "error by name": tuple(
        row
        for members, code in (
            ({"type": "requests", "code": "rate_limit_exceeded"}, "upstream_rate_limited"),
            ({"type": "rate_limit_error"}, "upstream_rate_limited"),
            ({"status": "RESOURCE_EXHAUSTED"}, "upstream_rate_limited"),
            ({"type": "overloaded_error"}, "upstream_unavailable"),
            ({"status": 503}, "upstream_unavailable"),
            ({"type": "invalid_request_error", "code": "tool_use_failed"}, "tool_use_failed"),
            ({"code": "context_length_exceeded"}, "context_length_exceeded"),
            ({"type": "server_error"}, "upstream_error"),
            ({"code": "odd"}, "upstream_error"),
        )
        for body in (json.dumps({"error": {"message": "No.", **members}}).encode(),)
        for row in (
            fails(unary, f"{members}", body, code=code),
            fails(stream, f"{members}", event(body), DONE, code=code),
            fails(
                stream,
                f"{members} after some text",
                *(*PIECES, event(body), DONE),
                code=code,
                text="Blue whale",
                used=PARTIAL,
            ),
        )
    ),
    "flagged prompt": (
        *(
            fails(
                unary,
                member,
                json.dumps(whole(choices=[], **{member: found})).encode(),
                code="content_filter",
            )
            for member in ("prompt_filter_results", "prompt_annotations")
            for found in (FILTERED, [])
        ),
        fails(unary, "nothing about it", json.dumps(whole(choices=[])).encode(), code=INVALID),
        unary("with an answer", json.dumps(whole(prompt_filter_results=FILTERED)).encode()),
        stream(
            "before an answer",
            event({**chunk(None), "choices": [], "prompt_filter_results": FILTERED}),
            *STREAM,
        ),
    ),
    "bare error": tuple(
        fails(stream, f"{name}, {kind}", body, code=code, response={"kind": kind})
        for kind in ("text/event-stream", "application/json", "text/plain")
        for name, body, code in (
            ("429", b'{"error":{"message":"Slow.","code":429}}', "upstream_rate_limited"),
            ("500", b' \r\n{"error":{"message":"Broke.","code":500}}', "upstream_error"),
            ("503 as text", b'{"error":{"message":"Lost.","code":"503"}}', "upstream_unavailable"),
            (
                "of an account",
                b'{"error":{"message":"No.","code":"insufficient_quota"}}',
                "upstream_account",
            ),
            (
                "429 alone",
                b'{"code":429,"message":"Exhausted (check quota)."}',
                "upstream_rate_limited",
            ),
            ("429 in a list", b'[{"code":429,"message":"Slow."}]', "upstream_rate_limited"),
            ("503 alone", b'{"code":"503","message":"Lost."}', "upstream_unavailable"),
            ("a message alone", b'{"message":"Broke."}', "upstream_error"),
            ("a detail alone", b'{"detail":"Broke."}', "upstream_error"),
            ("an array", b"[1, 2]", INVALID),
            ("no error", b'{"detail":{}}', INVALID),
        )
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_odd_answer_is_what_it_says(kind: str) -> None:
    await check(KINDS[kind])

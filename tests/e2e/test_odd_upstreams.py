"""Answers that OpenAI's SDKs read although they are odd, as bytes on a socket: what comes of each.

    KINDS    kind ─► rows of the bytes, what the caller gets, and what it costs

Each row goes through every door, on one stack for all rows of its kind. An answer of text "Blue
whale" with a report of 11 and 2 tokens is the sound one; a row says in what its own differs.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import grpc
import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, DoorName, document, params
from tests.support.books import Charge
from tests.support.grpc_client import failed
from tests.support.priced_models import STRICT, cost, priced
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE

BOM: Final = b"\xef\xbb\xbf"
LARGEST: Final = 2**20
"""Bytes of a whole answer, and of an event."""
Framing = Literal["chunked", "length", "close"]

# ------------------------------------------------------------------------------ bytes of answers


def http(
    *body: bytes,
    status: int = 200,
    kind: str | None = "text/event-stream",
    coding: str | None = None,
    framing: Framing = "chunked",
    cut: bool = False,
) -> bytes:
    """Return the bytes of a response; `cut` leaves out the end of its body."""
    lines = [b"HTTP/1.1 %d Fine" % status, b"connection: close"]
    if kind is not None:
        lines.append(b"content-type: " + kind.encode())
    if coding is not None:
        lines.append(b"content-encoding: " + coding.encode())
    whole = b"".join(body)
    if framing == "chunked":
        lines.append(b"transfer-encoding: chunked")
        whole = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in body if part)
        whole += b"" if cut else b"0\r\n\r\n"
    elif framing == "length":
        lines.append(b"content-length: %d" % (len(whole) + cut))
    return b"\r\n".join([*lines, b"", whole])


def usage(**counts: Any) -> dict[str, Any]:
    return {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13} | counts


def chunk(text: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Make a chunk of one choice; `index` is the choice's, the rest the chunk's."""
    index = more.pop("index", 0)
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice], **more}


def event(said: Mapping[str, Any] | bytes) -> bytes:
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    return b"data: " + data + b"\n\n"


def report(**more: Any) -> dict[str, Any]:
    return {**chunk(None), "choices": [], "usage": usage(), **more}


def whole(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Blue whale"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], "usage": usage(), **more}


PIECES: Final = (event(chunk("Blue")), event(chunk(" whale")))
STOP: Final = event(chunk(None, "stop"))
REPORT: Final = event(report())
DONE: Final = event(b"[DONE]")
STREAM: Final = (*PIECES, STOP, REPORT, DONE)
WHOLE: Final = json.dumps(whole()).encode()


def json_answer(*body: bytes, **more: Any) -> bytes:
    return http(*body, **{"kind": "application/json", "framing": "length", **more})


# ----------------------------------------------------------------------------------- the tables


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What is charged; the prompt is counted by the service if it is estimated."""

    prompt: int = 11
    completion: int = 2
    partial: bool = False
    estimated: bool = False


REPORTED: Final = Used()
COUNTED: Final = Used(estimated=True)
PARTIAL: Final = Used(estimated=True, partial=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An answer, and what is right."""

    name: str
    answer: bytes
    streamed: bool
    code: str = ""
    """Of the error; "" is success."""
    text: str = "Blue whale"
    """All that is delivered."""
    used: Used | None = REPORTED
    usages: tuple[Any, ...] | None = None
    """The reports that the caller gets; None is the sound one, and none in a stream."""
    timings: int = 0
    """The documents with a member of this name."""
    strict: bool = False
    request: Mapping[str, Any] = field(default_factory=dict)


def stream(name: str, *body: bytes, response: Mapping[str, Any] | None = None, **more: Any) -> Row:
    """Make a row of a streamed answer."""
    return Row(name=name, answer=http(*body, **(response or {})), streamed=True, **more)


def unary(name: str, *body: bytes, response: Mapping[str, Any] | None = None, **more: Any) -> Row:
    """Make a row of a whole answer."""
    return Row(name=name, answer=json_answer(*body, **(response or {})), streamed=False, **more)


def fails(make: Any, name: str, *body: bytes, code: str, **more: Any) -> Row:
    """Make a row of an answer that is an error, by default before any text."""
    row: Row = make(name, *body, **{"code": code, "text": "", "used": None, "usages": (), **more})
    return row


def both(name: str, **response: Any) -> Iterable[Row]:
    """Make the rows of a response that changes nothing, whole and streamed."""
    yield stream(name, *STREAM, response=response)
    yield unary(name, WHOLE, response=response)


INVALID: Final = "upstream_invalid_response"
TRUNCATED: Final = "upstream_truncated"
ASKED: Final = {"stream_options": {"include_usage": True}}
TWO: Final = {"n": 2}
LATIN: Final = json.dumps(whole()).encode().replace(b"Blue", b"Bl\xfce")


def numbers(value: float) -> list[dict[str, Any]]:
    choice = {**whole()["choices"][0], "logprobs": {"content": [{"token": "a", "logprob": value}]}}
    return [choice]


def failing_choice(*finishes: str) -> list[dict[str, Any]]:
    return [
        {**whole()["choices"][0], "index": i, "finish_reason": f} for i, f in enumerate(finishes)
    ]


FALSY: Final[tuple[Any, ...]] = (None, False, 0, "", {}, [])
FILTERED: Final = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": True}}}]
LARGE: Final = "a" * (LARGEST - 1000)

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
            ("503 as text", b'{"error":{"message":"Lost.","code":"503"}}', "upstream_error"),
            (
                "of an account",
                b'{"error":{"message":"No.","code":"insufficient_quota"}}',
                "upstream_account",
            ),
            ("an array", b"[1, 2]", INVALID),
            ("no error", b'{"detail":{}}', INVALID),
        )
    ),
}


# ------------------------------------------------------------------------------------- the test


@pytest.mark.parametrize("kind", KINDS)
async def test_an_odd_answer_is_what_it_says(kind: str) -> None:
    rows = KINDS[kind]
    async with raw_server(rows) as url:
        entries = {
            f"row-{number}": priced(
                upstream_model=f"{number}", upstream=STRICT if row.strict else "raw"
            )
            for number, row in enumerate(rows)
        }
        async with accounts_stack(
            entries, base_urls={"raw": url, STRICT: url}, max_response_bytes=LARGEST
        ) as stack:
            for door in DOORS:
                found = await asyncio.gather(
                    *(ask(stack, door, number, row) for number, row in enumerate(rows))
                )
                wrong = {
                    (row.name, row.streamed): (told, wanted)
                    for row, (told, wanted) in zip(rows, found, strict=True)
                    if told != wanted
                }
                assert wrong == {}, door
            await stack.rests()
            stack.books.nothing_is_open()


async def ask(stack: AccountsStack, door: DoorName, number: int, row: Row) -> tuple[Any, Any]:
    """Return how a call went and what it cost, and what is right."""
    request = {**document(f"row-{number}"), **row.request}
    team = stack.books.team()
    code, said = await asyncio.wait_for(
        _by_grpc(stack, team.key, request, streamed=row.streamed)
        if door == "grpc"
        else _by_rest(stack, door, team.key, request, streamed=row.streamed),
        PATIENCE,
    )
    texts = [
        choice["delta" if row.streamed else "message"].get("content") or ""
        for one in said
        for choice in one["choices"]
        if "message" in choice or "delta" in choice
    ]
    usages = tuple(one["usage"] for one in said if one.get("usage") is not None)
    timings = sum("timings" in one for one in said)
    await stack.service.rests()
    told = (code, "".join(texts), usages, timings, stack.books.charges(team))
    sound: tuple[Any, ...] = () if row.streamed else (usage(),)
    wanted = (
        row.code,
        row.text,
        sound if row.usages is None else row.usages,
        row.timings,
        charges(row, request, streamed=row.streamed and door != "grpc"),
    )
    return told, wanted


def charges(row: Row, request: Mapping[str, Any], *, streamed: bool) -> list[Charge]:
    used = row.used
    if used is None:
        return []
    prompt = used.prompt
    if used.estimated:
        sent = {**request, "stream": True} if streamed else request
        prompt = -(-openai_json.canonicalize_request(params(sent)).ByteSize() // 4)
    return [
        Charge(
            amount=cost(prompt, used.completion),
            prompt=prompt,
            completion=used.completion,
            partial=used.partial,
            estimated=used.estimated,
        )
    ]


async def _by_grpc(
    stack: AccountsStack, key: str, request: Mapping[str, Any], *, streamed: bool
) -> tuple[str, list[Any]]:
    stub = ChatCompletionServiceStub(stack.channel)
    options: dict[str, Any] = {"metadata": (("authorization", f"Bearer {key}"),)}
    said: list[Any] = []
    try:
        if streamed:
            call = stub.StreamChatCompletion(
                StreamChatCompletionRequest(params=params(request)), **options
            )
            async for response in call:
                chunk = openai_json.encode_chunk(response.chunk)
                said += [json.loads(chunk)]
        else:
            answer = await stub.CreateChatCompletion(
                CreateChatCompletionRequest(params=params(request)), **options
            )
            said.append(json.loads(openai_json.encode_completion(answer.completion)))
    except grpc.aio.AioRpcError as error:
        return failed(error).error.code_text, said
    return "", said


async def _by_rest(
    stack: AccountsStack, door: DoorName, key: str, request: Mapping[str, Any], *, streamed: bool
) -> tuple[str, list[Any]]:
    web = stack.web if door == "rest" else stack.inside
    body = {**request, "stream": True} if streamed else request
    said: list[Any] = []
    async with web.stream(
        "POST", PATH, json=body, headers={"authorization": f"Bearer {key}"}
    ) as response:
        if response.status_code != 200:
            return json.loads(await response.aread())["error"]["code"], said
        if not streamed:
            return "", [json.loads(await response.aread())]
        async for line in response.aiter_lines():
            data = line.removeprefix("data: ")
            if not line.startswith("data: "):
                continue
            if data == "[DONE]":
                return "", said
            one = json.loads(data)
            if "error" in one and "choices" not in one:
                return one["error"]["code"], said
            said.append(one)
    raise AssertionError("the stream has no end")


@asynccontextmanager
async def raw_server(rows: tuple[Row, ...]) -> AsyncIterator[str]:
    """Run an upstream that answers a request for the model of a number with that row's bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        number = int(json.loads(await reader.readexactly(size))["model"])
        try:
            writer.write(rows[number].answer)
            await writer.drain()
            writer.write_eof()
            await reader.read()  # the service closes
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

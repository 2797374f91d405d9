"""The faults on the wire."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from service.simulator import SimulatorServer
from service.simulator.faults import FAULTS
from service.simulator.faults.framing import PIECES, SEPARATORS, VENDOR, WIDE
from service.simulator.faults.whole_answers import INTERNAL_DETAILS
from tests.faults.simulator_client import (
    MEBIBYTE,
    Answer,
    ask,
    ended,
)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "forecast",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


@pytest.fixture
async def server() -> AsyncIterator[SimulatorServer]:
    async with await SimulatorServer.start() as running:
        yield running


Check = Callable[[Answer], bool]


def streamed(check: Check, *, model: str = "", **members: Any) -> tuple[str, dict[str, Any], Check]:
    return model, {"stream": True, **members}, check


def unary(check: Check, *, model: str = "", **members: Any) -> tuple[str, dict[str, Any], Check]:
    return model, members, check


def error_of(status: int, **members: Any) -> tuple[str, dict[str, Any], Check]:
    """Expect an error object with this status and these members."""

    def check(answer: Answer) -> bool:
        error = answer.document["error"]
        return answer.status == status and all(error[k] == v for k, v in members.items())

    return unary(check)


def usages(*expected: Any, key: str | None = None) -> list[tuple[str, dict[str, Any], Check]]:
    """Expect a usage, or one of its counts, in the stream and possibly in the unary response."""

    def pick(usage: Any) -> Any:
        return usage[key] if key and usage else usage

    def in_stream(answer: Answer) -> bool:
        found = [event["usage"] for event in answer.events if not event["choices"]]
        return answer.done and [pick(usage) for usage in found] == list(expected)

    def in_document(answer: Answer) -> bool:
        if not expected:
            return "usage" not in answer.document
        return bool(pick(answer.document["usage"]) == expected[-1])

    return [streamed(in_stream, stream_options={"include_usage": True}), unary(in_document)]


def half(answer: Answer) -> bool:
    """Expect some chunks and no end of the stream."""
    return len(answer.events) == 5 and not answer.done and not answer.finish_reasons


def lines(body: bytes, end: bytes) -> list[bytes]:
    return [line.removeprefix(b"data: ") for line in body.split(end) if line]


def parsed(payloads: list[bytes]) -> bool:
    *chunks, done = payloads
    return done == b"[DONE]" and len([json.loads(chunk) for chunk in chunks]) == 10


def everywhere(value: Any) -> bool:
    """Check that every object of the document has the vendor's member."""
    if isinstance(value, list):
        return all(map(everywhere, value))
    if not isinstance(value, dict):
        return True
    inner = {name: member for name, member in value.items() if name != "x_vendor"}
    return value.get("x_vendor") == VENDOR and all(map(everywhere, inner.values()))


FORCED: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required"}
RATE_LIMITED = {"type": "requests", "code": "rate_limit_exceeded"}

WIRE: dict[str, list[tuple[str, dict[str, Any], Check]]] = {
    # fault: each (options in the model's name, members of the request, what has to be on the wire)
    "close-before-headers": [unary(lambda a: a.raw == b"" and not a.reset)],
    "reset-before-headers": [unary(lambda a: a.raw == b"" and a.reset)],
    "flood-headers": [
        unary(lambda a: a.raw.count(b"x-flood") == 4096),
        unary(lambda a: a.raw.count(b"x-flood") == 3, model="=3"),
    ],
    "no-http": [unary(lambda a: not a.raw.startswith(b"HTTP"))],
    "reset-mid-stream": [
        streamed(lambda a: a.reset and len(a.events) == 5),
        streamed(lambda a: a.reset and len(a.events) == 2, model="=2"),
        unary(lambda a: a.reset and 0 < len(a.body) < 900),
    ],
    "cut-chunked-body": [streamed(lambda a: half(a) and not a.terminated and not a.reset)],
    "truncated-body": [
        unary(lambda a: not a.reset and f"content-length: {2 * len(a.body)}"[:-1] in a.head)
    ],
    "cut-tool-call": [
        streamed(
            lambda a: (
                not a.terminated
                and not a.finish_reasons
                and "tool_calls" in a.events[-1]["choices"][0]["delta"]
            ),
            **FORCED,
        )
    ],
    "bad-chunking": [streamed(lambda a: a.raw.endswith(b"\r\nnot a size\r\n"))],
    "body-overrun": [unary(lambda a: a.raw.count(b"HTTP/1.1 200") == 2)],
    "500": [error_of(500, type="server_error")],
    "502": [unary(lambda a: a.status == 502 and b"<html>" in a.body)],
    "503": [error_of(503), unary(lambda a: "retry-after" not in a.head)],
    "504": [unary(lambda a: a.status == 504 and b"<html>" in a.body)],
    "503-retry-after": [error_of(503), unary(lambda a: "retry-after: 1\r" in a.head + "\r")],
    "429": [error_of(429, **RATE_LIMITED), unary(lambda a: "retry-after" not in a.head)],
    "429-retry-after": [
        error_of(429, **RATE_LIMITED),
        unary(lambda a: "retry-after: 0.5" in a.head, model="=0.5"),
        streamed(lambda a: a.status == 429 and "retry-after: 1" in a.head),
    ],
    "429-retry-after-date": [unary(lambda a: "retry-after: wed, 21 oct 2015" in a.head)],
    "429-retry-after-garbage": [unary(lambda a: "retry-after: soon" in a.head)],
    "429-quota": [error_of(429, code="insufficient_quota")],
    "401": [error_of(401, code="invalid_api_key")],
    "402": [error_of(402, code="insufficient_credits")],
    "403": [error_of(403)],
    "400": [error_of(400, param="temperature", code="invalid_value")],
    "400-integer-code": [error_of(400, code=400)],
    "400-flat": [unary(lambda a: a.status == 400 and a.document["code"] == 400)],
    "400-text": [unary(lambda a: a.status == 400 and a.body == b"Bad Request")],
    "400-empty": [unary(lambda a: a.status == 400 and a.body == b"")],
    "400-odd-members": [error_of(400, message=["a", "list"])],
    "400-internal-details": [
        unary(
            lambda a: all(detail in a.document["error"]["message"] for detail in INTERNAL_DETAILS)
        )
    ],
    "404": [error_of(404, code="model_not_found")],
    "422": [error_of(422, param="messages[0].content")],
    "422-detail": [unary(lambda a: a.status == 422 and "detail" in a.document)],
    "200-html": [unary(lambda a: a.status == 200 and "content-type: text/html" in a.head)],
    "200-empty": [unary(lambda a: a.status == 200 and a.body == b"")],
    "200-text": [unary(lambda a: a.status == 200 and a.body == b'{"id')],
    "200-array": [unary(lambda a: a.document == [])],
    "200-null": [unary(lambda a: a.document is None)],
    "200-error": [error_of(200, type="server_error")],
    "200-deep": [unary(lambda a: a.body.count(b"[") == 100_000)],
    "204": [unary(lambda a: a.status == 204 and a.body == b"")],
    "redirect": [
        unary(lambda a: a.status == 307 and "location: http://elsewhere.invalid/" in a.head),
        unary(lambda a: "location: http://h:1/p?q=r" in a.head, model="=http://h:1/p?q=r"),
    ],
    "huge-error-body": [
        unary(lambda a: a.status == 500 and len(a.document["error"]["message"]) == 100 * MEBIBYTE),
        unary(lambda a: len(a.document["error"]["message"]) == MEBIBYTE, model="=1048576"),
    ],
    "huge-body": [
        unary(
            lambda a: (
                len(a.document["choices"][0]["message"]["content"]) == 64 * MEBIBYTE
                and a.terminated
            )
        )
    ],
    "gzip": [unary(lambda a: json.loads(gzip.decompress(a.body))["object"] == "chat.completion")],
    "gzip-bomb": [
        unary(
            lambda a: (
                "content-encoding: gzip" in a.head
                and len(a.body) < 32 * 1024
                and json.loads(gzip.decompress(a.body))["object"] == "chat.completion"
            ),
            model="=16",
        ),
        unary(lambda a: len(gzip.decompress(a.body)) > 256 * MEBIBYTE),
    ],
    "early-hints": [unary(lambda a: a.status == 103 and b"\r\n\r\nHTTP/1.1 200 OK" in a.raw)],
    "vendor-headers": [unary(lambda a: "set-cookie: " in a.head and INTERNAL_DETAILS[0] in a.head)],
    "json-instead-of-stream": [streamed(lambda a: a.document["object"] == "chat.completion")],
    "no-done": [streamed(lambda a: a.terminated and not a.done and a.finish_reasons == ["stop"])],
    "no-finish-reason": [streamed(lambda a: a.terminated and a.done and not a.finish_reasons)],
    "clean-end-mid-stream": [streamed(lambda a: a.terminated and half(a))],
    "empty-stream": [streamed(lambda a: a.terminated and a.body == b"")],
    "done-only": [streamed(lambda a: a.payloads == ["[DONE]"])],
    "malformed-event": [
        streamed(lambda a: a.done and not a.payloads[5].endswith("}") and len(a.payloads) == 11)
    ],
    "array-event": [streamed(lambda a: a.done and a.events[1] == [1, 2])],
    "deep-event": [streamed(lambda a: a.done and a.payloads[1].count("[") == 100_000)],
    "error-event": [
        streamed(
            lambda a: (
                a.terminated
                and not a.done
                and len(a.events) == 6
                and a.events[5]["error"]["type"] == "server_error"
            )
        )
    ],
    "error-event-first": [streamed(lambda a: "error" in a.events[0] and not a.done)],
    "error-event-then-done": [streamed(lambda a: a.events[-1]["error"]["code"] == 500 and a.done)],
    "error-event-text": [streamed(lambda a: a.events[-1]["error"] == "the engine died")],
    "error-event-named": [streamed(lambda a: b"\n\nevent: error\ndata: {" in a.body)],
    "500-stream": [streamed(lambda a: a.status == 500 and "error" in a.events[0])],
    "events-after-done": [streamed(lambda a: a.payloads[-2] == "[DONE]" and a.terminated)],
    "huge-event": [
        streamed(
            lambda a: (
                a.done
                and max(map(len, a.body.split(b"\n\n"))) > 2_000_000
                and max(map(len, a.body.split(b"\n"))) < 2000
                and "choices" in json.loads(b"".join(lines(a.body.split(b"\n\n")[1], b"\n")))
            )
        )
    ],
    "huge-line": [
        streamed(lambda a: a.sound and max(map(len, a.payloads)) > 2 * MEBIBYTE),
        streamed(lambda a: a.sound and max(map(len, a.payloads)) < MEBIBYTE, model="=70000"),
    ],
    "one-byte-writes": [
        streamed(lambda a: a.sound and {len(chunk) for chunk in a.chunks[:-1]} == {1}),
        unary(lambda a: a.document["object"] == "chat.completion" and len(a.chunks) > 500),
    ],
    "split-utf8": [
        streamed(
            lambda a: (
                a.sound
                and a.text.startswith(WIDE)
                and any(chunk[-1:] > b"\x7f" for chunk in a.chunks)
            )
        )
    ],
    "split-data": [streamed(lambda a: a.sound and a.chunks[:3] == [b"da", b"ta:", b" "])],
    "crlf": [streamed(lambda a: parsed(lines(a.body, b"\r\n\r\n")))],
    "cr-only": [streamed(lambda a: b"\n" not in a.body and parsed(lines(a.body, b"\r\r")))],
    "mixed-line-ends": [streamed(lambda a: parsed(lines(a.body, b"\r\n\r")))],
    "comments": [
        streamed(lambda a: a.body.count(b": between\n\n") == 11 and a.body.count(b"\ndata: ") == 11)
    ],
    "multi-line-data": [streamed(lambda a: a.done and a.body.count(b'data: {\ndata: "id":') == 10)],
    "bom": [streamed(lambda a: a.body.startswith(b"\xef\xbb\xbfdata: {") and a.done)],
    "no-space": [streamed(lambda a: a.body.count(b"data:{") == 10)],
    "other-fields": [streamed(lambda a: a.body.count(b"event: message\nid: 7\nretry: 10\n") == 11)],
    "blank-lines": [streamed(lambda a: a.body.count(b"\n\n\ndata: ") == 11)],
    "unicode-separators": [
        streamed(lambda a: a.text.startswith(SEPARATORS) and "\u2028".encode() in a.body),
        unary(lambda a: a.document["choices"][0]["message"]["content"] == SEPARATORS),
    ],
    "lone-surrogates": [
        streamed(
            lambda a: (
                b'"\\ud83d"' in a.chunks[1]
                and b'"\\ude00"' in a.chunks[2]
                and a.text.startswith("".join(PIECES))
            )
        ),
        unary(lambda a: a.document["choices"][0]["message"]["content"] == PIECES[0]),
    ],
    "vendor-members": [
        streamed(lambda a: all(map(everywhere, a.events)), logprobs=True),
        unary(lambda a: everywhere(a.document), logprobs=True),
    ],
    "escaped-json": [
        streamed(lambda a: a.text.startswith(WIDE) and a.body.isascii()),
        unary(lambda a: b'\n  "id": ' in a.body and a.body.isascii()),
    ],
    "untyped-stream": [streamed(lambda a: a.sound and "content-type: text/plain" in a.head)],
    "usage-missing": usages(),
    "usage-twice": usages(8, 8, key="completion_tokens"),
    "usage-negative": usages(-1, key="prompt_tokens"),
    "usage-huge": usages(2**63, key="total_tokens"),
    "usage-text": usages("7", key="total_tokens"),
    "usage-fraction": usages(1.5, key="total_tokens"),
    "usage-null": usages(None),
    "usage-list": usages([]),
    "usage-in-every-chunk": [
        streamed(lambda a: a.done and all(event["usage"]["total_tokens"] for event in a.events))
    ],
}

ENDLESS: dict[str, list[tuple[dict[str, Any], Callable[[bytes], bool]]]] = {
    # fault: each (members of the request, what is on the wire before the caller leaves)
    "hang-mid-stream": [
        ({"stream": True}, lambda raw: raw.count(b"data: ") == 5),
        ({}, lambda raw: b'{"id"' in raw and b"}}" not in raw),
    ],
    "drip-headers": [({}, lambda raw: raw.endswith(b"x-drip: aaa"))],
    "drip-body": [
        ({"stream": True}, lambda raw: raw.endswith(b"1\r\na\r\n1\r\na\r\n")),
        ({}, lambda raw: raw.endswith(b"1\r\n \r\n1\r\n \r\n")),
    ],
    "drip-comments": [({"stream": True}, lambda raw: raw.count(b": keep-alive\n\n") == 3)],
    "hang-after-done": [({"stream": True}, lambda raw: raw.endswith(b"data: [DONE]\n\n\r\n"))],
    "endless-line": [({"stream": True}, lambda raw: len(raw) > 3 * MEBIBYTE)],
}


def test_every_fault_is_looked_at() -> None:
    assert {*WIRE, *ENDLESS, "hang-before-headers"} == set(FAULTS)


@pytest.mark.parametrize("name", WIRE)
async def test_a_fault_does_what_its_sentence_says(server: SimulatorServer, name: str) -> None:
    for options, members, check in WIRE[name]:
        answer = await ask(server, f"sim-fault:{name}{options}", **members)
        record = await server.next_record()

        assert check(answer), answer.raw[:4000]
        assert record.scenario == name
        assert await ended(record) in ("completed", "aborted")
    assert server.open_requests == 0


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_endless_fault_goes_on_until_the_caller_leaves(
    server: SimulatorServer, name: str
) -> None:
    value = "=0.001" if name.startswith("drip") else ""
    for members, enough in ENDLESS[name]:
        async with asyncio.timeout(10):
            await ask(server, f"sim-fault:{name}{value}", enough=enough, **members)
        record = await server.next_record()

        assert record.scenario == name
        assert await ended(record) == "caller_left"


async def test_a_huge_answer_stops_when_the_caller_leaves(server: SimulatorServer) -> None:
    for name in ("huge-error-body", "huge-body", "gzip-bomb=60000"):
        await ask(server, f"sim-fault:{name}", enough=lambda raw: len(raw) > 50_000)
        record = await server.next_record()

        assert await ended(record) == "caller_left"
        assert record.bytes_sent < 50 * MEBIBYTE


async def test_what_breaks_is_recorded_as_broken_by_the_simulator(server: SimulatorServer) -> None:
    for name in ("reset-mid-stream", "cut-chunked-body"):
        await ask(server, f"sim-fault:{name}", stream=True)
        record = await server.next_record()
        assert await ended(record) == "aborted"
        assert record.chunks_sent == 5


def test_the_wire_is_the_same_on_uvloop() -> None:
    async def run() -> None:
        async with await SimulatorServer.start() as server:
            for name in ("reset-mid-stream", "one-byte-writes", "cut-chunked-body", "split-utf8"):
                for options, members, check in WIRE[name]:
                    answer = await ask(server, f"sim-fault:{name}{options}", **members)
                    assert check(answer), name
            server.records.clear()
            await ask(
                server,
                "sim-fault:endless-line",
                enough=lambda raw: len(raw) > 3 * MEBIBYTE,
                stream=True,
            )
            assert await ended(await server.next_record()) == "caller_left"

    uvloop.run(run())

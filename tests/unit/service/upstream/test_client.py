import asyncio
import errno
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service import errors
from service.call import Call
from service.metering.progress import Progress
from service.models import Model
from service.telemetry import Telemetry
from service.upstream import client as client_module
from service.upstream.chunks import MOST_TOGETHER
from service.upstream.client import UpstreamClient, transport
from service.upstream.client_failures import FAILURES
from service.upstream.client_limits import UpstreamBounds, UpstreamLimits
from service.upstream.transport.connection import IdleConnectionLost, ServerDisconnected
from service.upstream.transport.parser import HeadTooLarge
from service.upstream_dialect import Dialect
from service.upstream_report import Cause, UpstreamReport
from tests.support.samples import (
    CALLER_KEY,
    CONTENT,
    DONE,
    MODEL,
    UPSTREAM_KEY,
    accepted,
    accepted_of,
    call,
    chunk,
    completion,
    event,
    model,
    params,
    usage_chunk,
)

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
BOM = b"\xef\xbb\xbf"
STRICT = model(dialect=Dialect(stream_end="strict"))
STREAM = (event(chunk("a")), event(chunk("b")), event(chunk(None, "stop")), event(usage_chunk()))


class Body(httpx.AsyncByteStream):
    """A body in pieces that ends, fails or hangs, and records how far it was read."""

    def __init__(self, *pieces: bytes, ending: BaseException | None = None, hangs: bool = False):
        self._pieces = pieces
        self._ending = ending
        self._hangs = hangs
        self.taken = 0
        self.ended = False
        self.hanging = asyncio.Event()
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.taken < len(self._pieces):
            self.taken += 1
            return self._pieces[self.taken - 1]
        if self._hangs:
            self.hanging.set()
            await asyncio.Event().wait()
        self.ended = True
        if self._ending is not None:
            raise self._ending
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


class Endless(Body):
    """Whether the last piece repeats forever."""

    async def __anext__(self) -> bytes:
        self.taken += 1
        return self._pieces[min(self.taken, len(self._pieces)) - 1]


Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


def says(
    status: int = 200, *pieces: bytes, headers: dict[str, str] | None = None, **body: Any
) -> Answer:
    stream = Body(*pieces, **body)
    return with_body(stream, status, headers)


def with_body(body: Body, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=headers or JSON, stream=body, request=request)

    return answer


def raises(error: BaseException) -> Answer:
    async def answer(request: httpx.Request) -> NoReturn:
        raise error

    return answer


class Wire(httpx.AsyncBaseTransport):
    """A transport that returns the responses of a list and records the requests."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.bodies: list[Body] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        response = await self._answers[min(len(self.requests), len(self._answers)) - 1](request)
        assert isinstance(response.stream, Body)
        self.bodies.append(response.stream)
        return response

    async def aclose(self) -> None:
        self.closed = True


class Bench:
    """A client on a fake transport."""

    def __init__(self, *answers: Answer, **limits: Any) -> None:
        values: dict[str, Any] = {
            "connect": 5.0,
            "first_byte": 5.0,
            "idle": 5.0,
            "longest_retry_after": 5.0,
            "max_response_bytes": 100_000,
            "busy": 0.0,
        }
        self.wire = Wire(*answers)
        self.telemetry = Telemetry()
        self.client = UpstreamClient(
            self.wire,
            UpstreamLimits(**{**values, **limits}),
            self.telemetry,
            now=lambda: NOW,
            random=lambda: 0.0,
        )

    async def complete(
        self,
        request: ChatCompletionParams | None = None,
        of: Model = MODEL,
        current: Call | None = None,
    ) -> Any:
        answer = await self.client.complete(accepted_of(request or params(), of), current or call())
        return json.loads(openai_json.encode_completion(answer))

    async def stream(
        self, current: Call | None = None, *, wants_usage: bool = False, **members: Any
    ) -> list[Any]:
        chunks: list[Any] = []
        await self.stream_into(chunks, current, wants_usage=wants_usage, **members)
        return chunks

    async def stream_into(
        self,
        chunks: list[Any],
        current: Call | None = None,
        *,
        wants_usage: bool = False,
        progress: Progress | None = None,
        **members: Any,
    ) -> None:
        progress = progress or Progress(wants_usage=wants_usage)
        stream = self.client.stream(accepted(**members), current or call(), progress)
        async with aclosing(stream):
            async for some in stream:
                chunks += [json.loads(openai_json.encode_chunk(answer.chunk)) for answer in some]

    async def fail(self, current: Call | None = None) -> errors.Failure:
        """Return the failure of a completion."""
        with pytest.raises(errors.Failure) as failed:
            await self.complete(current=current)
        self.assert_settled()
        return failed.value

    async def break_off(
        self,
        current: Call | None = None,
        progress: Progress | None = None,
        of: Model = MODEL,
    ) -> tuple[list[Any], errors.Failure]:
        """Return the chunks of a stream, and its failure."""
        chunks: list[Any] = []
        with pytest.raises(errors.Failure) as failed:
            await self.stream_into(chunks, current, wants_usage=True, progress=progress, of=of)
        self.assert_settled()
        return chunks, failed.value

    def value(self, name: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name)

    def assert_settled(self) -> None:
        assert [body.closed for body in self.wire.bodies] == [1] * len(self.wire.bodies)
        assert self.value("chat_upstream_streams_open") == 0


def whole(**members: Any) -> bytes:
    return json.dumps(completion(**members)).encode()


def told(**members: Any) -> bytes:
    return json.dumps({"error": members}).encode()


def contents(chunks: Sequence[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or "" for each in chunks for choice in each["choices"]
    )


# --------------------------------------------------------------------------------------- requests


async def test_a_request_has_these_headers_and_no_others() -> None:
    bench = Bench(says(200, whole()))
    await bench.complete(current=call(carried=(("traceparent", "00-1-2-01"), ("baggage", "a=1"))))
    (request,) = bench.wire.requests

    assert request.method == "POST"
    assert str(request.url) == "https://vllm.example:8443/v1/chat/completions"
    assert request.headers.multi_items() == [
        ("host", "vllm.example:8443"),
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", "chatcompletion/0.1"),
        ("authorization", f"Bearer {UPSTREAM_KEY}"),
        ("x-request-id", "req_1"),
        ("traceparent", "00-1-2-01"),
        ("baggage", "a=1"),
        ("content-length", str(len(request.content))),
    ]
    assert request.extensions == {
        "timeout": {"connect": 5.0, "pool": 5.0, "read": None, "write": None},
        "keepalive": 1.5,
        "fresh": False,
    }


async def test_without_key_and_trace_their_headers_are_absent() -> None:
    bench = Bench(says(200, whole()))
    bare = type(MODEL.upstream)(name="u", base_url="http://h/v1", api_key="")
    await bench.complete(of=model(upstream=bare))

    assert bench.wire.requests[0].headers.keys().isdisjoint({"authorization", "traceparent"})


async def test_the_callers_key_is_not_sent() -> None:
    bench = Bench(says(200, *STREAM, DONE, headers=EVENTS))
    await bench.stream(call(authorization=f"Bearer {CALLER_KEY}"))
    (request,) = bench.wire.requests

    assert request.headers["accept"] == "text/event-stream"
    assert CALLER_KEY not in repr(request.headers.raw) + request.content.decode()


async def test_what_is_sent_is_the_request() -> None:
    bench = Bench(says(200, whole()), says(200, *STREAM, DONE, headers=EVENTS))
    await bench.complete(params(x=[1]))
    await bench.stream(x=[1])
    unary, streamed = (json.loads(request.content) for request in bench.wire.requests)

    assert unary == {
        "model": "vendor/gemma",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 100,
        "x": [1],
    }
    assert streamed == {**unary, "stream": True, "stream_options": {"include_usage": True}}


async def test_what_exceeds_the_models_maximum_is_not_sent() -> None:
    bench = Bench(says(200, whole()))
    with pytest.raises(errors.InvalidRequest):
        await bench.complete(params(max_tokens=1001))

    assert bench.wire.requests == []


async def test_closing_closes_the_transport() -> None:
    bench = Bench()
    await bench.client.aclose()

    assert bench.wire.closed


# ------------------------------------------------------------------------------- unary responses


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"usage": None, "x": {"y": [None, 1.5]}, "system_fingerprint": None},
        {"error": None},
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": None}}] * 3},
    ],
)
async def test_a_completion_passes_as_it_is_but_for_its_model(members: dict[str, Any]) -> None:
    bench = Bench(says(200, whole(**members)))
    current = call()

    assert await bench.complete(current=current) == completion(model="default", **members)
    assert current.dispatched
    assert current.record.upstream_attempts == 1
    assert bench.wire.bodies[0].ended
    bench.assert_settled()


async def test_a_completion_may_come_in_pieces_and_without_a_type() -> None:
    body = whole()
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]

    assert await Bench(says(200, *pieces, headers={"x": "y"})).complete()


async def test_an_answer_is_bounded() -> None:
    body = whole()
    assert await Bench(says(200, body), max_response_bytes=len(body)).complete()

    failure = await Bench(says(200, body), max_response_bytes=len(body) - 1).fail()
    assert isinstance(failure, errors.UpstreamInvalidResponse)


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    body = Endless(b"x" * 4096)
    failure = await Bench(with_body(body)).fail()

    assert isinstance(failure, errors.UpstreamInvalidResponse)
    assert body.taken <= 100_000 // 4096 + 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>no</html>",
        b'{"choices":',
        b"[]",
        b"null",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":null}',
        b'{"choices":"x"}',
        b'{"choices":[7]}',
        b"\xff\xfe",
        b"[" * 5000,
        b'{"x":NaN}',
        b'{"choices":[],"usage":{"prompt_tokens":7}}',
        b'{"error":null}',
        b'{"error":{}}',
        b"data: [DONE]\n\n",
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_what_is_no_completion_is_refused(body: bytes) -> None:
    failure = await Bench(says(200, body)).fail()

    assert isinstance(failure, errors.UpstreamInvalidResponse)
    assert failure.dispatched
    assert failure.message == failure.default_message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (told(message="Broke."), errors.UpstreamError),
        (told(message="Broke.", code=400), errors.InvalidRequest),
        (told(message="Broke.", code="404"), errors.InvalidRequest),
        (told(message="Broke.", code=429), errors.UpstreamRateLimited),
        (told(code=401), errors.UpstreamAccount),
        (b'{"object":"error","message":"Broke.","code":400}', errors.InvalidRequest),
        (b'{"object":"error","message":"Broke.","code":429}', errors.UpstreamRateLimited),
        # OpenRouter sends it beside choices that are empty.
        (whole(error={"message": "Broke.", "code": 429}), errors.UpstreamRateLimited),
        (whole(error={"message": "Broke.", "code": 402}), errors.UpstreamAccount),
        (whole(error={"message": "Broke."}), errors.UpstreamError),
    ],
)
async def test_an_error_with_the_status_of_a_success_is_an_error(
    body: bytes, kind: type[errors.Failure]
) -> None:
    assert type(await Bench(says(200, body)).fail()) is kind
    assert type(await Bench(says(201, BOM, body)).fail()) is kind
    # In place of a stream, also a byte at a time after an empty line.
    one_by_one = (b"\r\n", *(body[at : at + 1] for at in range(len(body))))
    for pieces in ((body,), (BOM + body,), one_by_one, (BOM, *one_by_one)):
        for headers in (EVENTS, JSON):
            chunks, failure = await Bench(says(200, *pieces, headers=headers)).break_off()
            assert (chunks, type(failure)) == ([], kind)


@pytest.mark.parametrize("error", ["Broke.", {"x": None}, 1, True, [{}]])
async def test_an_error_without_known_members_beside_choices_is_an_error(error: Any) -> None:
    failure = await Bench(says(200, whole(error=error))).fail()
    assert type(failure) is errors.UpstreamError

    answer = says(200, STREAM[0], event(chunk("b", error=error)), DONE, headers=EVENTS)
    chunks, failure = await Bench(answer).break_off()
    assert (contents(chunks), type(failure)) == ("a", errors.UpstreamError)


async def test_a_choice_that_finished_by_an_error_is_an_error() -> None:
    choices = [*completion()["choices"], {**completion()["choices"][0], "finish_reason": "error"}]
    failure = await Bench(says(200, whole(choices=choices))).fail()
    assert type(failure) is errors.UpstreamError

    failure = await Bench(says(200, whole(choices=choices, error={"code": 429}))).fail()
    assert type(failure) is errors.UpstreamRateLimited

    answer = says(200, STREAM[0], event(chunk("b", "error")), DONE, headers=EVENTS)
    chunks, failure = await Bench(answer).break_off()
    assert (contents(chunks), type(failure)) == ("a", errors.UpstreamError)


FALSY: list[Any] = [None, False, 0, "", {}, []]


@pytest.mark.parametrize("error", FALSY)
async def test_a_falsy_error_is_none(error: Any) -> None:
    for spaced in (json.dumps(error), json.dumps(error, indent=1).replace("{}", "{ }")):
        body = whole(error="?").replace(b'"?"', spaced.encode())
        assert contents_of(await Bench(says(200, body)).complete()) == CONTENT

    pieces = (event(chunk("a", error=error)), FINISHED, DONE)
    assert contents(await Bench(says(200, *pieces, headers=EVENTS)).stream()) == "a"


@pytest.mark.parametrize("member", ["prompt_filter_results", "prompt_annotations"])
async def test_a_flagged_prompt_is_the_callers_mistake(member: str) -> None:
    found = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": True}}}]
    body = whole(id="", choices=[], usage=None, **{member: found})
    failure = await Bench(says(200, body)).fail()

    assert type(failure) is errors.InvalidRequest
    assert (failure.code, failure.dispatched) == ("content_filter", True)
    assert failure.message == "The model provider flagged the input."


ODD = b'{"id":"caf\xe9","choices":[{"index":0,"%b":{"content":"%b","x":NaN}%b}]}'


async def test_bytes_and_numbers_that_are_none_are_mended_and_counted() -> None:
    bench = Bench(says(200, ODD % (b"message", b"\xff", b"")))
    current = call()
    document = await bench.complete(current=current)

    assert document["id"] == "caf\ufffd"
    assert document["choices"][0]["message"] == {"content": "\ufffd", "x": None}
    assert current.record.mended == 1

    pieces = [b"data: " + ODD % (b"delta", text, b"") + b"\n\n" for text in (b"\xff", b"b")]
    bench = Bench(says(200, *pieces, FINISHED, DONE, headers=EVENTS))
    current = call()
    assert contents(await bench.stream(current)) == "\ufffdb"
    assert current.record.mended == 2


async def test_a_byte_order_mark_needs_no_mending() -> None:
    current = call()
    answer = await Bench(says(200, BOM + whole())).complete(current=current)
    assert answer["choices"] == completion()["choices"]
    assert current.record.mended == 0


async def test_an_error_in_a_document_that_is_mended_is_that_error() -> None:
    body = b'{"error":{"message":"caf\xe9","code":429},"x":NaN}'
    for answer in (says(200, body), says(200, b"data: " + body + b"\n\n", headers=EVENTS)):
        bench = Bench(answer)
        _, failure = await bench.break_off()
        assert type(failure) is errors.UpstreamRateLimited
    assert type(await Bench(says(200, body)).fail()) is errors.UpstreamRateLimited


async def test_json_in_place_of_a_stream_is_read_a_little_way_only() -> None:
    body = Endless(b'{"error":', b"x" * 4096)
    _, failure = await Bench(with_body(body, headers=EVENTS)).break_off()

    assert isinstance(failure, errors.UpstreamInvalidResponse)
    assert body.taken <= 18


# ---------------------------------------------------------------------------------------- a stream


async def test_a_stream_passes_as_it_is_but_for_its_model() -> None:
    bench = Bench(says(200, *STREAM, DONE, headers=EVENTS))
    current = call()
    chunks = await bench.stream(current)

    assert chunks == [
        {**document, "model": "default"}
        for document in (chunk("a"), chunk("b"), chunk(None, "stop"))
    ]
    assert current.record.upstream_attempts == 1
    bench.assert_settled()


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_the_usage_is_passed_on_or_withheld(wants_usage: bool) -> None:
    bench = Bench(says(200, *STREAM, DONE, headers=EVENTS))
    chunks = await bench.stream(wants_usage=wants_usage)

    usages = [document["usage"] for document in chunks if document.get("usage")]
    assert usages == ([usage_chunk()["usage"]] if wants_usage else [])


async def test_an_upstream_that_disregards_its_limit_is_cut() -> None:
    bench = Bench(with_body(Endless(event(chunk("a"))), headers=EVENTS))
    current = call()
    progress = Progress(wants_usage=False, most=10)
    stream = bench.client.stream(accepted(), current, progress)
    async with aclosing(stream):
        chunks = [json.loads(openai_json.encode_chunk(answer.chunk)) async for (answer,) in stream]

    assert contents(chunks) == "a" * (16 * (10 + 64) + 1)
    assert chunks[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert {answer["model"] for answer in chunks} == {"default"}
    assert progress.complete
    assert current.record.overran
    assert not bench.wire.bodies[0].ended
    bench.assert_settled()


def delta(finish: str | None = None, **members: Any) -> bytes:
    choice = {"index": 0, "delta": members, "finish_reason": finish}
    return event({**chunk(), "choices": [choice]})


CALLS: dict[str, dict[str, Any]] = {
    "tool": {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]},
    "custom tool": {"tool_calls": [{"index": 0, "custom": {"input": "x"}}]},
    "function": {"function_call": {"arguments": "x"}},
}


@pytest.mark.parametrize("called", CALLS.values(), ids=CALLS)
async def test_a_cut_within_a_call_is_an_error_and_no_broken_arguments(
    called: dict[str, Any],
) -> None:
    bench = Bench(with_body(Endless(delta(**called)), headers=EVENTS))
    current = call()
    progress = Progress(wants_usage=True, most=10)
    chunks, failure = await bench.break_off(current, progress)

    assert type(failure) is errors.UpstreamInvalidResponse
    assert failure.dispatched
    assert "output limit" in failure.message
    assert len(chunks) == 16 * (10 + 64) + 1
    assert all(answer["choices"][0]["finish_reason"] is None for answer in chunks)
    assert current.record.overran
    assert progress.used == (0, 10, True)


async def test_a_call_that_is_finished_does_not_make_an_error_of_a_cut() -> None:
    finished = event(
        {
            **chunk(),
            "choices": [{"index": 1, "delta": CALLS["tool"], "finish_reason": "tool_calls"}],
        }
    )
    bench = Bench(with_body(Endless(finished, event(chunk("a"))), headers=EVENTS))
    progress = Progress(wants_usage=False, most=10)
    chunks = await bench.stream(progress=progress)

    assert chunks[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert progress.complete


ARGUMENTS = json.dumps({"query": "whale song " * 30})


@pytest.mark.parametrize(
    ("pieces", "finish"),
    [
        ([{"content": letter} for letter in "The blue whale is the largest animal. " * 10], "stop"),
        (
            [{"tool_calls": [{"index": 0, "function": {"arguments": a}}]} for a in ARGUMENTS],
            "tool_calls",
        ),
        (
            [
                {
                    "tool_calls": [
                        {"index": 0, "function": {"name": "search_the_web", "arguments": a}}
                    ]
                }
                for a in ARGUMENTS
            ],
            "tool_calls",
        ),
        ([{"function_call": {"arguments": letter}} for letter in ARGUMENTS], "function_call"),
        # Packets of 20 ms, of which a token is several.
        ([{"audio": {"data": "A" * 160}}] * 1000 + [{"audio": {"transcript": "four"}}], "stop"),
        ([{"reasoning": " so"}] * 1000 + [{"content": " 46"}] * 50, "stop"),
        ([{"reasoning_content": "thought"}] * 1000 + [{"content": " 46"}] * 50, "stop"),
    ],
    ids=[
        *("content", "a tool call", "a call that each piece names", "a function call"),
        *("sound", "reasoning", "reasoning_content"),
    ],
)
async def test_a_sound_answer_in_many_pieces_is_whole(
    pieces: list[dict[str, Any]], finish: str
) -> None:
    """Some 90 tokens, of 100 that are allowed; or reasoning, which does not count for them."""
    events = [*(delta(**piece) for piece in pieces), delta(finish), event(usage_chunk(11, 90))]
    bench = Bench(says(200, *events, DONE, headers=EVENTS))
    current = call()
    progress = Progress(wants_usage=True, most=100)
    chunks = await bench.stream(current, progress=progress)

    assert [c["choices"][0]["delta"] for c in chunks[: len(pieces)]] == pieces
    assert [c["choices"][0]["finish_reason"] for c in chunks[len(pieces) : -1]] == [finish]
    assert chunks[-1]["usage"] == usage_chunk(11, 90)["usage"]
    assert progress.used == (11, 90, False)
    assert not current.record.overran


async def test_it_does_not_matter_how_a_stream_is_cut() -> None:
    data = b"\xef\xbb\xbf: hi\r\n\r\n" + b"".join(STREAM).replace(b"\n", b"\r\n") + DONE
    bench = Bench(says(200, *(data[at : at + 1] for at in range(len(data))), headers=EVENTS))

    assert contents(await bench.stream()) == "ab"


async def test_other_calls_have_their_turn_within_a_burst() -> None:
    bench = Bench(says(200, event(chunk("a")) * (4 * MOST_TOGETHER) + b"".join(STREAM)))
    progress = Progress(wants_usage=False)
    stream = bench.client.stream(accepted(), call(), progress, in_process=True)
    counted: list[int] = []
    async with aclosing(stream):
        async for _ in stream:
            asyncio.get_running_loop().call_soon(lambda: counted.append(progress.counted))
    assert counted[:4] == [MOST_TOGETHER * full for full in range(1, 5)]


async def test_a_gauge_shows_the_open_streams() -> None:
    bench = Bench(says(200, *STREAM, DONE, headers=EVENTS))
    stream = bench.client.stream(accepted(), call(), Progress(wants_usage=False))
    async with aclosing(stream):
        await anext(stream)
        assert bench.value("chat_upstream_streams_open") == 1

    assert bench.value("chat_upstream_streams_open") == 0


async def test_what_follows_the_end_is_read_so_that_the_connection_is_kept() -> None:
    bench = Bench(says(200, *STREAM, DONE, b": bye\n\n", b"data: junk\n\n", headers=EVENTS))

    assert contents(await bench.stream()) == "ab"
    assert bench.wire.bodies[0].ended
    bench.assert_settled()


async def test_but_not_for_ever() -> None:
    chatty, silent = Endless(*STREAM, DONE, b"x" * 999), Body(*STREAM, DONE, hangs=True)
    for body in (chatty, silent):
        assert contents(await Bench(with_body(body, headers=EVENTS)).stream()) == "ab"
        assert body.closed == 1
    assert chatty.taken < 80


async def test_a_stream_that_breaks_after_its_end_is_complete() -> None:
    bench = Bench(says(200, *STREAM, DONE, ending=httpx.ReadError("x"), headers=EVENTS))

    assert contents(await bench.stream()) == "ab"


FINISHED = STREAM[2]
BROKEN: dict[str, tuple[tuple[bytes, ...], type[errors.Failure]]] = {
    "nothing": ((), errors.UpstreamTruncated),
    "comments only": ((b": keep-alive\n\n",), errors.UpstreamTruncated),
    "no [DONE] and no finish_reason": (STREAM[:2], errors.UpstreamTruncated),
    "[DONE] only": ((DONE,), errors.UpstreamTruncated),
    "[DONE] after a chunk without choices": (
        (event(usage_chunk()), DONE),
        errors.UpstreamTruncated,
    ),
    "half of [DONE]": ((*STREAM, b"data: [DO"), errors.UpstreamTruncated),
    "half of an event": ((*STREAM[:3], STREAM[3][:40]), errors.UpstreamTruncated),
    "malformed JSON": ((STREAM[0], b'data: {"id":\n\n'), errors.UpstreamInvalidResponse),
    "an array": ((STREAM[0], b"data: []\n\n"), errors.UpstreamInvalidResponse),
    "text": ((STREAM[0], b"data: hello\n\n"), errors.UpstreamInvalidResponse),
    "empty data": ((STREAM[0], b"data:\n\n"), errors.UpstreamTruncated),
    "an event over the limit": (
        (STREAM[0], b"data: " + b"x" * 100_000, b"\n\n"),
        errors.UpstreamInvalidResponse,
    ),
    "a line over the limit": (
        (STREAM[0], b":" + b"x" * 100_000),
        errors.UpstreamInvalidResponse,
    ),
    "events over the limit at the end": (
        (STREAM[0], b"data: " + b"x" * 60_000 + b"\ndata: " + b"x" * 60_000),
        errors.UpstreamInvalidResponse,
    ),
    "an error": ((STREAM[0], b"data: " + told(message="x") + b"\n\n"), errors.UpstreamError),
    "an error with a status": (
        (STREAM[0], b"data: " + told(message="x", code=429) + b"\n\n"),
        errors.UpstreamRateLimited,
    ),
    "an error with a textual status": (
        (STREAM[0], b"data: " + told(message="x", code="400") + b"\n\n"),
        errors.InvalidRequest,
    ),
    "an error event": (
        (STREAM[0], b"event: error\ndata: " + told(message="x") + b"\n\n"),
        errors.UpstreamError,
    ),
    "an error event without an object": (
        (STREAM[0], b'event: error\ndata: {"message":"x","code":400}\n\n'),
        errors.InvalidRequest,
    ),
    "an error event that says nothing": (
        (STREAM[0], b"event: error\ndata: {}\n\n"),
        errors.UpstreamError,
    ),
    "an error of older vLLM": (
        (STREAM[0], b'data: {"object":"error","message":"x","code":400}\n\n'),
        errors.InvalidRequest,
    ),
    "an error that is text": ((STREAM[0], b'data: {"error":"x"}\n\n'), errors.UpstreamError),
    "an error before anything": ((b"data: " + told(code=404) + b"\n\n",), errors.UpstreamError),
}


@pytest.mark.parametrize(("before", "retryable"), [((), True), ((STREAM[0],), False)])
async def test_a_rate_limit_within_a_stream_is_retryable_only_before_its_first_text(
    before: tuple[bytes, ...], retryable: bool
) -> None:
    limit = b"data: " + told(message="x", code=429) + b"\n\n"
    _, failure = await Bench(says(200, *before, limit, headers=EVENTS)).break_off()

    assert isinstance(failure, errors.UpstreamRateLimited)
    assert (failure.retryable, failure.dispatched) == (retryable, not retryable)


@pytest.mark.parametrize("name", BROKEN)
async def test_a_stream_that_is_not_complete_fails(name: str) -> None:
    pieces, kind = BROKEN[name]
    chunks, failure = await Bench(says(200, *pieces, headers=EVENTS)).break_off()

    assert type(failure) is kind
    assert contents(chunks) == contents(
        [
            json.loads(piece.removeprefix(b"data: "))
            for piece in pieces
            if piece in STREAM or b'"index": 1' in piece
        ]
    )


COMPLETE: dict[str, tuple[tuple[bytes, ...], bool]] = {
    # What comes before the clean end of the body, and whether it is complete if strict.
    "[DONE] and every finish_reason": ((*STREAM, DONE), True),
    "[DONE] without its empty line": ((*STREAM, b"data: [DONE]\n"), True),
    "[DONE] without its line end": ((*STREAM, b"data: [DONE]"), True),
    "an event without its empty line": ((*STREAM[:3], STREAM[3][:-1]), False),
    "no [DONE]": (STREAM, False),
    "no finish_reason": ((*STREAM[:2], DONE), False),
    "a finish_reason under another index": (
        (*STREAM[:2], event(chunk(None, "stop", index=1)), DONE),
        True,
    ),
}


@pytest.mark.parametrize("name", COMPLETE)
async def test_a_stream_is_complete_by_the_rule_of_its_upstream(name: str) -> None:
    pieces, strict = COMPLETE[name]

    assert contents(await Bench(says(200, *pieces, headers=EVENTS)).stream()) == "ab"
    bench = Bench(says(200, *pieces, headers=EVENTS))
    if strict:
        assert contents(await bench.stream(of=STRICT)) == "ab"
    else:
        chunks, failure = await bench.break_off(of=STRICT)
        assert (contents(chunks), type(failure)) == ("ab", errors.UpstreamTruncated)


async def test_a_body_that_breaks_off_is_no_complete_answer() -> None:
    """Whatever came before: the end is not clean."""
    answer = says(200, *STREAM, ending=httpx.RemoteProtocolError("x"), headers=EVENTS)
    chunks, failure = await Bench(answer).break_off()

    assert (contents(chunks), type(failure)) == ("ab", errors.UpstreamTruncated)


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "y"},
        JSON,
        {"content-type": "text/plain"},
        {"content-type": "text/html"},
        {"content-type": "application/x-ndjson"},
        {"content-type": "text/event-stream", "content-encoding": "none"},
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202, 203])
async def test_a_stream_is_known_by_its_first_byte(status: int, headers: dict[str, str]) -> None:
    for first in (b"", BOM, b": hi\n\n", b"\r\n", b"event: x\n", b"id: 1\n", b"x: y\n"):
        bench = Bench(says(status, first, *STREAM, DONE, headers=headers))
        assert contents(await bench.stream()) == "ab"


async def test_an_event_may_be_as_large_as_a_whole_answer() -> None:
    large = event(chunk("x" * 90_000))
    assert len(large) < 100_000
    bench = Bench(says(200, large, FINISHED, DONE, headers=EVENTS))

    assert len(contents(await bench.stream())) == 90_000


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "text/html"}, b"<html></html>"),
        (EVENTS, b"<html></html>"),
        (JSON, whole()),
        (EVENTS, whole()),
        (EVENTS, b"null"),
        (EVENTS, b'"error"'),
        (EVENTS, b"\x1f\x8b\x08"),
        (EVENTS, b"Internal Server Error\n\n"),
        (EVENTS, b"error code: 1015"),
        ({"content-type": "application/x-ndjson"}, b"{}\n{}\n"),
    ],
)
async def test_what_is_no_stream_is_refused(headers: dict[str, str], body: bytes) -> None:
    for pieces in ((body,), tuple(body[at : at + 1] for at in range(len(body)))):
        chunks, failure = await Bench(says(200, *pieces, headers=headers)).break_off()
        assert (chunks, type(failure)) == ([], errors.UpstreamInvalidResponse)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, errors.UpstreamInvalidResponse),
        (400, errors.InvalidRequest),
        (401, errors.UpstreamAccount),
        (404, errors.UpstreamError),
        (408, errors.UpstreamTimeout),
        (413, errors.RequestTooLarge),
        (418, errors.UpstreamError),
        (429, errors.UpstreamRateLimited),
        (500, errors.UpstreamError),
        (502, errors.UpstreamError),
        (503, errors.UpstreamUnavailable),
        (504, errors.UpstreamError),
    ],
)
async def test_a_refusal_is_final_and_closed(status: int, kind: type[errors.Failure]) -> None:
    headers = {**JSON, "location": "https://elsewhere.example/"}
    attempts = 2 if status == 503 else 1
    for body in ((b"<html>",), ()):
        bench = Bench(*(says(status, *body, headers=headers) for _ in range(attempts)))
        current = call()
        failure = await bench.fail(current)

        assert type(failure) is kind
        assert current.record.upstream_attempts == attempts
        assert current.record.upstream_status == status
        assert current.record.upstream == "primary"
        assert current.dispatched is failure.dispatched is (status not in (429, 503))


async def test_a_success_without_a_body_is_no_answer() -> None:
    assert type(await Bench(says(204)).fail()) is errors.UpstreamInvalidResponse
    assert type((await Bench(says(204)).break_off())[1]) is errors.UpstreamTruncated


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (httpx.ConnectError("x"), "refused"),
        (httpx.ConnectTimeout("x"), "timeout"),
        (httpx.PoolTimeout("x"), "pool"),
        (httpx.ReadTimeout("x"), "timeout"),
        (httpx.ReadError("x"), "reset"),
        (ServerDisconnected("x"), "closed"),
        (httpx.RemoteProtocolError("x"), "protocol"),
        (HeadTooLarge("x"), "too_large"),
        (OSError("x"), "other"),
    ],
)
async def test_an_operator_learns_the_cause(error: Exception, cause: Cause) -> None:
    failure = await Bench(raises(error), raises(error)).fail()

    assert failure.report == UpstreamReport(cause=cause)


@pytest.mark.parametrize(
    ("of", "cause"),
    [
        (socket.gaierror(-2, "x"), "dns"),
        (ssl.SSLError("x"), "tls"),
        (OSError("x"), "refused"),
        (OSError(errno.EMFILE, "x"), "descriptors"),
    ],
)
async def test_an_operator_learns_why_there_is_no_connection(of: OSError, cause: Cause) -> None:
    error = httpx.ConnectError("x")
    error.__cause__ = of
    failure = await Bench(raises(error), raises(error)).fail()

    assert failure.report == UpstreamReport(cause=cause)


async def test_the_callers_mistake_is_passed_on_without_secrets() -> None:
    body = told(
        message=f"vendor/gemma at {MODEL.upstream.base_url} says no to {UPSTREAM_KEY}",
        type="BadRequestError",
        param="messages",
        code=40001,
    )
    failure = await Bench(says(400, body)).fail()

    assert failure.message == "default at [redacted] says no to [redacted]"
    assert (failure.kind, failure.param, failure.code) == ("BadRequestError", "messages", 40001)


QUOTA = {"message": "text-canary", "type": "insufficient_quota", "code": "insufficient_quota"}
GEMINI = {
    "code": 400,
    "message": "API key not valid. Please pass a valid text-canary.",
    "status": "INVALID_ARGUMENT",
    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
}
ACCOUNT_FAULTS: dict[str, tuple[int, Any, tuple[str, ...]]] = {
    # Its HTTP status, its body, and the names for the log.
    "OpenAI": (429, {"error": QUOTA}, ("insufficient_quota",)),
    "Gemini": (400, [{"error": GEMINI}], ("400", "INVALID_ARGUMENT", "API_KEY_INVALID")),
    "Gemini without reason": (
        400,
        [{"error": {**GEMINI, "details": []}}],
        ("400", "INVALID_ARGUMENT"),
    ),
    "Anthropic": (
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the text-canary API.",
            },
        },
        ("error", "invalid_request_error"),
    ),
    "xAI": (
        400,
        {"code": "an invalid argument", "error": "Incorrect API key provided: text-canary"},
        (),
    ),
    "a detail": (400, {"detail": "API key not valid: text-canary"}, ()),
    "DashScope": (400, {"code": "Arrearage", "message": "text-canary"}, ("Arrearage",)),
    "Moonshot": (
        429,
        {"error": {"message": "text-canary", "type": "exceeded_current_quota_error"}},
        ("exceeded_current_quota_error",),
    ),
    "Zhipu": (429, {"error": {"code": "1113", "message": "text-canary"}}, ("1113",)),
    "MiniMax": (
        429,
        {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "text-canary"}},
        ("1008",),
    ),
    "Fireworks": (
        412,
        {"error": {"message": "text-canary", "code": "PRECONDITION_FAILED", "type": "error"}},
        ("PRECONDITION_FAILED", "error"),
    ),
    "LiteLLM": (
        400,
        {"error": {"message": "text-canary", "type": "budget_exceeded", "code": "400"}},
        ("400", "budget_exceeded"),
    ),
}
IN_SUCCESS = tuple(name for name in ACCOUNT_FAULTS if name != "Fireworks")
"""Fireworks reports an account fault by status alone."""


def assert_account_fault(failure: errors.Failure, names: tuple[str, ...]) -> None:
    assert isinstance(failure, errors.UpstreamAccount)
    assert failure.message == failure.default_message
    assert (failure.kind, failure.param, failure.code) == (None, None, None)
    assert failure.dispatched
    assert failure.retry_after is None
    assert failure.report == UpstreamReport(cause="account", names=names)


@pytest.mark.parametrize("vendor", ACCOUNT_FAULTS)
async def test_a_fault_of_our_account_is_not_the_callers(vendor: str) -> None:
    status, document, names = ACCOUNT_FAULTS[vendor]
    # The response has a wait, and a valid response would follow.
    headers = {**JSON, "retry-after": "0"}
    refused = says(status, json.dumps(document).encode(), headers=headers)
    bench = Bench(refused, says(200, whole()))
    current = call()
    assert_account_fault(await bench.fail(current), names)
    assert current.dispatched
    assert len(bench.wire.requests) == current.record.upstream_attempts == 1

    refused = says(status, json.dumps(document).encode(), headers=headers)
    bench = Bench(refused, says(200, *STREAM, DONE, headers=EVENTS))
    chunks, failure = await bench.break_off()
    assert chunks == []
    assert_account_fault(failure, names)
    assert len(bench.wire.requests) == 1


@pytest.mark.parametrize("vendor", IN_SUCCESS)
async def test_a_fault_of_our_account_is_one_under_the_status_of_a_success(vendor: str) -> None:
    _, document, names = ACCOUNT_FAULTS[vendor]
    body = json.dumps(document).encode()
    assert_account_fault(await Bench(says(200, body)).fail(), names)
    for headers in (JSON, EVENTS):
        _, failure = await Bench(says(200, body, headers=headers)).break_off()
        assert_account_fault(failure, names)


@pytest.mark.parametrize("vendor", IN_SUCCESS)
async def test_a_fault_of_our_account_is_one_in_an_event(vendor: str) -> None:
    _, document, names = ACCOUNT_FAULTS[vendor]
    data = b"data: " + json.dumps(document).encode() + b"\n\n"
    for pieces in ((data,), (b"event: error\n" + data,), (STREAM[0], data, DONE)):
        chunks, failure = await Bench(says(200, *pieces, headers=EVENTS)).break_off()
        assert_account_fault(failure, names)
        assert contents(chunks) == ("a" if len(pieces) == 3 else "")


@pytest.mark.parametrize(
    "members",
    [
        {"prompt_filter_results": [{"prompt_index": 0}]},
        {"code": 0, "message": "ok", "base_resp": {"status_code": 0, "status_msg": ""}},
        {"message": "You are rate limited", "code": 429},
        {"usage": {}, "code": "insufficient_quota"},
    ],
)
async def test_members_of_a_vendor_in_a_chunk_without_choices_are_no_fault(
    members: dict[str, Any],
) -> None:
    first = event({**chunk(), "choices": [], **members})

    assert contents(await Bench(says(200, first, *STREAM, DONE, headers=EVENTS)).stream()) == "ab"


async def test_older_vllm_says_it_without_a_frame() -> None:
    body = b'{"object":"error","message":"Too long.","type":"BadRequestError","code":400}'

    assert (await Bench(says(400, body)).fail()).message == "Too long."


async def test_an_error_body_is_read_a_little_way_only() -> None:
    body = Endless(b"x" * 4096)
    failure = await Bench(with_body(body, 500)).fail()

    assert isinstance(failure, errors.UpstreamError)
    assert body.taken <= 17


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "GZIP", "x", "none, gzip"])
async def test_a_compressed_answer_is_not_read(encoding: str) -> None:
    for status, kind in (
        (200, errors.UpstreamInvalidResponse),
        (400, errors.InvalidRequest),
        (401, errors.UpstreamAccount),
        (429, errors.UpstreamRateLimited),
    ):
        bench = Bench(says(status, whole(), headers={**JSON, "content-encoding": encoding}))
        failure = await bench.fail()

        assert type(failure) is kind
        assert bench.wire.bodies[0].taken == 0


@pytest.mark.parametrize(
    "encoding", ["identity", " Identity ", "none", "UTF-8", "utf8", "", "identity, identity"]
)
async def test_an_answer_may_say_that_it_is_not_compressed(encoding: str) -> None:
    headers = {"content-encoding": encoding}
    assert await Bench(says(200, whole(), headers=headers)).complete()
    assert contents(await Bench(says(200, *STREAM, DONE, headers=headers)).stream()) == "ab"


# ------------------------------------------------------------------------- failures of the client

RAISED: list[tuple[Exception, type[errors.Failure], bool]] = [
    (ServerDisconnected("x"), errors.UpstreamError, True),
    (httpx.ConnectError("x"), errors.UpstreamUnavailable, False),
    (httpx.ConnectTimeout("x"), errors.UpstreamUnavailable, False),
    (httpx.PoolTimeout("x"), errors.Overloaded, False),
    (httpx.ReadTimeout("x"), errors.UpstreamTimeout, True),
    (httpx.WriteTimeout("x"), errors.UpstreamTimeout, True),
    (httpx.RemoteProtocolError("x"), errors.UpstreamInvalidResponse, True),
    (httpx.ReadError("x"), errors.UpstreamError, True),
    (httpx.WriteError("x"), errors.UpstreamError, True),
    (httpx.DecodingError("x"), errors.UpstreamError, True),
    (OSError(9, "x"), errors.UpstreamError, True),
]


@pytest.mark.parametrize(
    ("error", "kind", "dispatched"), RAISED, ids=lambda row: type(row).__name__
)
async def test_every_failure_of_the_client_is_one_of_ours(
    error: Exception, kind: type[errors.Failure], dispatched: bool
) -> None:
    current = call()
    bench = Bench(raises(error), longest_retry_after=0)
    failure = await bench.fail(current)

    assert type(failure) is kind
    assert failure.dispatched is dispatched
    assert failure.retryable is not dispatched
    assert current.dispatched is dispatched
    retried = kind is errors.UpstreamUnavailable
    assert len(bench.wire.requests) == (2 if retried else 1)


async def test_a_lack_of_descriptors_is_not_the_upstreams_fault() -> None:
    error = httpx.ConnectError("x")
    error.__cause__ = OSError(errno.ENFILE, "x")
    failure = await Bench(raises(error)).fail()
    assert type(failure) is errors.Overloaded
    assert failure.retryable


def test_every_row_of_the_table_is_met() -> None:
    met = set()
    for error, *_ in RAISED:
        row = next((row for row in FAILURES if isinstance(error, row[0])), None)
        met.add(row and row[0])

    assert met == {row[0] for row in FAILURES} | {None}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ReadError("x"), errors.UpstreamTruncated),
        (httpx.RemoteProtocolError("x"), errors.UpstreamTruncated),
        (httpx.ReadTimeout("x"), errors.UpstreamTimeout),
        (OSError("x"), errors.UpstreamTruncated),
    ],
    ids=repr,
)
async def test_a_body_that_breaks_off(error: Exception, kind: type[errors.Failure]) -> None:
    unary = await Bench(says(200, whole()[:50], ending=error)).fail()
    chunks, streamed = await Bench(says(200, STREAM[0], ending=error, headers=EVENTS)).break_off()

    assert type(unary) is type(streamed) is kind
    assert unary.dispatched
    assert streamed.dispatched
    assert contents(chunks) == "a"


async def test_what_nobody_foresees_is_not_dressed_up() -> None:
    bench = Bench(raises(KeyError("x")))
    with pytest.raises(KeyError):
        await bench.complete()


# ------------------------------------------------------------------------------------------ retries

UNREACHABLE = raises(httpx.ConnectError("x"))


def limited(status: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return says(status, told(message="Later."), headers={**JSON, **named})


@pytest.mark.parametrize(
    "first",
    [
        UNREACHABLE,
        limited(429, retry_after="0"),
        limited(503, retry_after="0"),
        limited(429, retry_after_ms="1"),
        limited(503),
        limited(529),
        limited(503, retry_after="soon"),
        limited(503, retry_after="Sat, 31 Jan 2026 11:00:00 GMT"),
    ],
)
async def test_a_request_is_sent_again_where_nothing_was_worked(first: Answer) -> None:
    bench = Bench(first, says(200, whole()))
    current = call()

    assert contents_of(await bench.complete(current=current)) == CONTENT
    assert current.record.upstream_attempts == len(bench.wire.requests) == 2
    assert bench.wire.requests[0].content == bench.wire.requests[1].content
    assert current.dispatched
    bench.assert_settled()


def contents_of(document: Any) -> Any:
    return document["choices"][0]["message"]["content"]


async def test_a_stream_is_asked_for_again_too() -> None:
    bench = Bench(UNREACHABLE, says(200, *STREAM, DONE, headers=EVENTS))

    assert contents(await bench.stream()) == "ab"
    assert len(bench.wire.requests) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (UNREACHABLE, errors.UpstreamUnavailable),
        (limited(429, retry_after="0"), errors.UpstreamRateLimited),
        (limited(503, retry_after="0"), errors.UpstreamUnavailable),
    ],
)
async def test_but_only_once(answer: Answer, kind: type[errors.Failure]) -> None:
    bench = Bench(answer)
    with pytest.raises(kind):
        await bench.complete()

    assert len(bench.wire.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        *(limited(status, retry_after="0") for status in (400, 401, 408, 409, 500, 502, 504)),
        limited(429),
        limited(429, retry_after="soon"),
        limited(429, retry_after="5.1"),
        limited(503, retry_after="120"),
        limited(200, retry_after="0"),
        raises(httpx.ReadTimeout("x")),
        raises(httpx.ReadError("x")),
    ],
)
async def test_and_never_elsewhere(answer: Answer) -> None:
    bench = Bench(answer)
    await bench.fail()

    assert len(bench.wire.requests) == 1


async def test_a_stream_that_broke_is_not_asked_for_again() -> None:
    bench = Bench(says(200, STREAM[0], headers=EVENTS))
    await bench.break_off()

    assert len(bench.wire.requests) == 1


async def test_a_wait_that_does_not_fit_the_deadline_is_not_waited() -> None:
    bench = Bench(limited(429, retry_after="4"), says(200, whole()))
    failure = await bench.fail(call(deadline=asyncio.get_running_loop().time() + 3))

    assert failure.retry_after == 4.0
    assert len(bench.wire.requests) == 1


async def test_the_wait_is_told_to_the_caller() -> None:
    limit = await Bench(limited(429, retry_after="30")).fail()
    overload = await Bench(limited(503, retry_after="30")).fail()

    assert (limit.retryable, limit.retry_after) == (True, 30.0)
    assert (overload.retryable, overload.retry_after) == (True, 30.0)


async def test_retries_have_a_budget() -> None:
    bench = Bench(UNREACHABLE, bounds=UpstreamBounds(failures=0))
    for _ in range(100):
        with pytest.raises(errors.UpstreamUnavailable):
            await bench.complete()

    assert 125 <= len(bench.wire.requests) <= 130


# ------------------------------------------------------------------------------------------- clocks


def silent() -> Answer:
    async def answer(request: httpx.Request) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    return answer


async def test_the_headers_of_a_stream_have_a_clock() -> None:
    bench = Bench(silent(), first_byte=0.01)
    _, failure = await bench.break_off()

    assert isinstance(failure, errors.UpstreamTimeout)
    assert failure.dispatched
    assert len(bench.wire.requests) == 1


async def test_the_first_event_of_a_stream_has_the_same_clock() -> None:
    _, failure = await Bench(says(200, hangs=True, headers=EVENTS), first_byte=0.01).break_off()

    assert isinstance(failure, errors.UpstreamTimeout)


async def test_a_dialect_has_clocks_of_its_own() -> None:
    hasty = model(dialect=Dialect(first_byte_timeout=0.01, idle_timeout=0.01))
    _, failure = await Bench(silent()).break_off(of=hasty)
    assert isinstance(failure, errors.UpstreamTimeout)

    chunks, failure = await Bench(says(200, STREAM[0], hangs=True, headers=EVENTS)).break_off(
        of=hasty
    )
    assert isinstance(failure, errors.UpstreamTimeout)
    assert contents(chunks) == "a"


async def test_a_whole_answer_may_take_as_long_as_its_call() -> None:
    begun = asyncio.Event()
    goes_on = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        begun.set()
        await goes_on.wait()
        return await says(200, whole())(request)

    bench = Bench(slow, first_byte=0.001, idle=0.001)
    asked = asyncio.create_task(bench.complete())
    await begun.wait()
    for _ in range(50):  # the loop runs timers that are due
        await asyncio.sleep(0)
    goes_on.set()

    assert contents_of(await asked) == CONTENT


OPTIONS = told(message="Extra inputs are not permitted: stream_options", code="extra_forbidden")
SOUND = (*STREAM, DONE)


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refusal_of_stream_options_is_sent_once_without_and_remembered(
    status: int,
) -> None:
    answers = [says(200, *SOUND, headers=EVENTS) for _ in range(2)]
    bench = Bench(says(status, OPTIONS), *answers)
    for _ in range(2):
        assert contents(await bench.stream()) == "ab"

    sent = [json.loads(request.content) for request in bench.wire.requests]
    assert ["stream_options" in each for each in sent] == [True, False, False]


async def test_a_refusal_that_stays_is_told_and_not_remembered() -> None:
    refusals = (OPTIONS, told(message="No."), OPTIONS, told(message="No."))
    bench = Bench(*(says(400, body) for body in refusals))
    _, failure = await bench.break_off()
    assert failure.message == "No."
    _, failure = await bench.break_off()

    sent = [json.loads(request.content) for request in bench.wire.requests]
    assert ["stream_options" in each for each in sent] == [True, False, True, False]


@pytest.mark.parametrize("name", ["continuous_usage_stats", "include_obfuscation"])
async def test_a_refusal_of_the_callers_options_keeps_ours(name: str) -> None:
    sound = says(200, *SOUND, headers=EVENTS)
    bench = Bench(says(400, OPTIONS), sound, says(200, *SOUND, headers=EVENTS))
    await bench.stream(stream=True, stream_options={name: True})
    await bench.stream()

    sent = [json.loads(request.content)["stream_options"] for request in bench.wire.requests]
    ours = {"include_usage": True}
    assert sent == [{**ours, name: True}, ours, ours]


async def test_without_ours_after_the_callers_options_is_remembered() -> None:
    bench = Bench(
        *(says(400, OPTIONS) for _ in range(2)),
        *(says(200, *SOUND, headers=EVENTS) for _ in range(2)),
    )
    for _ in range(2):
        await bench.stream(stream=True, stream_options={"include_obfuscation": True})

    sent = [json.loads(request.content) for request in bench.wire.requests]
    assert ["stream_options" in each for each in sent] == [True, True, False, False]


async def test_another_refusal_after_the_callers_options_is_the_callers() -> None:
    bench = Bench(says(400, OPTIONS), says(400, told(message="No.")))
    with pytest.raises(errors.InvalidRequest, match="No"):
        await bench.stream(stream=True, stream_options={"include_obfuscation": True})

    assert len(bench.wire.requests) == 2


async def test_another_refusal_is_not_about_stream_options() -> None:
    bench = Bench(says(400, told(message="my_stream_options_x is odd")))
    await bench.break_off()

    assert len(bench.wire.requests) == 1


async def test_a_dialect_can_be_without_stream_options() -> None:
    plain = model(dialect=Dialect(stream_options="never"))
    bench = Bench(says(200, *SOUND, headers=EVENTS))
    await bench.stream(of=plain)

    assert "stream_options" not in json.loads(bench.wire.requests[0].content)


async def test_a_dialect_adds_headers_and_a_query() -> None:
    odd = model(
        dialect=Dialect(
            headers=((b"api-key", b"secret"), (b"authorization", b"Basic x")),
            query="api-version=2024",
            keepalive=0.0,
        )
    )
    bench = Bench(says(200, whole()))
    await bench.complete(of=odd)
    (request,) = bench.wire.requests

    assert str(request.url).endswith("/v1/chat/completions?api-version=2024")
    assert request.headers["api-key"] == "secret"
    assert request.headers.get_list("authorization") == ["Basic x"]
    assert request.extensions["keepalive"] == 0.0


async def test_a_request_that_an_idle_connection_lost_is_sent_once_more() -> None:
    lost = raises(IdleConnectionLost("x"))
    bench = Bench(lost, says(200, whole()))
    assert contents_of(await bench.complete()) == CONTENT
    assert [request.extensions["fresh"] for request in bench.wire.requests] == [False, True]

    bench = Bench(lost, lost)
    failure = await bench.fail()
    assert type(failure) is errors.UpstreamError
    assert failure.dispatched
    assert len(bench.wire.requests) == 2


@pytest.mark.parametrize("status", [200, 400])
async def test_silence_in_a_body_has_a_clock(status: int) -> None:
    failure = await Bench(says(status, b"{", hangs=True), idle=0.01).fail()

    assert isinstance(failure, errors.UpstreamTimeout)


async def test_silence_in_a_stream_has_a_clock() -> None:
    chunks, failure = await Bench(
        says(200, STREAM[0], hangs=True, headers=EVENTS), idle=0.01
    ).break_off()

    assert contents(chunks) == "a"
    assert isinstance(failure, errors.UpstreamTimeout)
    assert failure.dispatched


# ------------------------------------------------------------------------------------ cancellation


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_caller_who_leaves_before_the_headers_leaves_nothing() -> None:
    begun = asyncio.Event()
    ended = []

    async def answer(request: httpx.Request) -> NoReturn:
        try:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            ended.append(True)

    bench = Bench(answer)
    task = asyncio.create_task(bench.complete())
    await begun.wait()
    await cancel(task)

    assert ended
    assert len(bench.wire.requests) == 1


@pytest.mark.parametrize("status", [200, 500])
async def test_a_caller_who_leaves_within_the_body_closes_it(status: int) -> None:
    body = Body(b"{", hangs=True)
    bench = Bench(with_body(body, status))
    task = asyncio.create_task(bench.complete())
    await body.hanging.wait()
    await cancel(task)

    bench.assert_settled()
    assert bench.value("chat_cancel_to_upstream_close_seconds_count") == (status == 200)


async def test_a_caller_who_leaves_within_a_stream_closes_it() -> None:
    body = Body(*STREAM, hangs=True)
    bench = Bench(with_body(body, headers=EVENTS))
    task = asyncio.create_task(bench.stream())
    await body.hanging.wait()
    assert bench.value("chat_upstream_streams_open") == 1
    await cancel(task)

    bench.assert_settled()
    assert bench.value("chat_cancel_to_upstream_close_seconds_count") == 1


async def test_a_stream_that_is_not_read_further_is_closed() -> None:
    bench = Bench(says(200, *STREAM, DONE, headers=EVENTS))
    stream = bench.client.stream(accepted(), call(), Progress(wants_usage=False))
    await anext(stream)
    await stream.aclose()

    bench.assert_settled()
    assert bench.wire.bodies[0].taken == 1
    assert bench.value("chat_cancel_to_upstream_close_seconds_count") == 1


async def test_a_complete_answer_is_no_leaving() -> None:
    bench = Bench(says(200, whole()), says(200, *STREAM, DONE, headers=EVENTS))
    await bench.complete()
    await bench.stream()

    assert bench.value("chat_cancel_to_upstream_close_seconds_count") == 0


async def test_a_caller_who_leaves_while_a_retry_waits_sends_none() -> None:
    closed = asyncio.Event()

    class Told(Body):
        async def aclose(self) -> None:
            await super().aclose()
            closed.set()

    current = call()
    bench = Bench(with_body(Told(told(message="Later.")), 429, {**JSON, "retry-after": "5"}))
    task = asyncio.create_task(bench.complete(current=current))
    await closed.wait()
    await cancel(task)

    assert len(bench.wire.requests) == 1
    assert not current.dispatched
    bench.assert_settled()


# ---------------------------------------------------------------------------------------- transport


@dataclass
class Made:
    """Return the arguments of the transport."""

    context: ssl.SSLContext
    max_connections: int
    keepalive: float


def test_a_transport_verifies_and_takes_nothing_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    monkeypatch.setattr(client_module, "Http11Transport", Made)
    made: Any = transport(max_connections=7)

    assert made.max_connections == 7
    # Servers on uvicorn close a connection that was idle for 5 s.
    assert 0 < made.keepalive < 5
    assert made.context.verify_mode is ssl.CERT_REQUIRED
    assert made.context.check_hostname
    assert made.context.cert_store_stats()["x509_ca"] > 0


async def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "authorities.pem"
    path.write_text("none")

    with pytest.raises(ssl.SSLError):
        transport(max_connections=1, verify=str(path))

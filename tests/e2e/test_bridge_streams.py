"""Streams over sockets: the first message determines the status; a disconnection ends the call."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from restbridge import server
from restbridge.http.limits import Limits
from tests.support.bridge_pair import REQUEST, STREAMED, Pair, bridged, broken, contents, events
from tests.support.fake_service import FakeService, Stream, chunk, fail, saying
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE, wait

Chunks = AsyncIterator[ChatCompletionChunk]


def post(document: Any) -> bytes:
    body = json.dumps(document).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with bridged() as running:
        yield running


async def test_a_stream_is_events_and_done(pair: Pair) -> None:
    response = await pair.http.post(PATH, json=STREAMED)

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-request-id"]
    said = events(response.content)
    assert contents(said) == "Hello"
    assert said[-1] == "[DONE]"
    assert said.count("[DONE]") == 1
    assert json.loads(said[0]) == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "any",
        "system_fingerprint": "fp",
        "choices": [
            {
                "index": 0,
                "delta": {"content": "Hel", "refusal": None},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
        "usage": None,
    }


async def test_line_breaks_in_what_is_said_forge_no_event(pair: Pair) -> None:
    text = "a\n\ndata: [DONE]\n\nb\r\nc\u2028\u0085\x0b"
    pair.service.stream = saying(text)
    said = events((await pair.http.post(PATH, json=STREAMED)).content)

    assert contents(said) == text
    assert said.count("[DONE]") == 1


async def test_a_stream_without_messages_is_complete(pair: Pair) -> None:
    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        return
        yield chunk()

    pair.service.stream = stream
    response = await pair.http.post(PATH, json=STREAMED)

    assert (response.status_code, events(response.content)) == (200, ["[DONE]"])


async def test_each_event_is_sent_when_its_message_is_there(pair: Pair) -> None:
    go_on = asyncio.Event()

    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        await context.send_initial_metadata((("x-ratelimit-limit-requests", "9"),))
        yield chunk("a")
        await go_on.wait()
        yield chunk("b")

    pair.service.stream = stream
    async with pair.http.stream("POST", PATH, json=STREAMED) as response:
        assert response.headers["x-ratelimit-limit-requests"] == "9"
        parts = response.aiter_raw()
        assert contents(events(await anext(parts))) == "a"
        go_on.set()
        rest = b"".join([part async for part in parts])
    assert contents(events(rest)) == "b"


async def test_a_failure_after_the_first_message_is_an_event_and_nothing_follows(
    pair: Pair,
) -> None:
    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        yield chunk("a")
        await fail(context, "UPSTREAM_TRUNCATED", message="cut")

    pair.service.stream = stream
    async with pair.http.stream("POST", PATH, json=STREAMED) as response:
        said = events(await broken(response.aiter_raw()))

    assert response.status_code == 200
    assert [contents(said), len(said)] == ["a", 2]
    assert json.loads(said[1]) == {
        "error": {
            "message": "cut",
            "type": "server_error",
            "param": None,
            "code": "upstream_truncated",
        }
    }
    await pair.works()
    sample = "http_server_request_duration_seconds_count"
    labels = {
        "http_request_method": "POST",
        "http_route": PATH,
        "http_response_status_code": "200",
        "error_type": "UPSTREAM_TRUNCATED",
    }
    assert pair.metric(sample, **labels) == 1


@pytest.mark.parametrize("breaks", [ValueError("canary"), grpc.StatusCode.INTERNAL])
async def test_a_foreign_failure_after_the_first_message_keeps_its_text_back(
    pair: Pair, breaks: ValueError | grpc.StatusCode
) -> None:
    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        yield chunk("a")
        if isinstance(breaks, ValueError):
            raise breaks
        await context.abort(breaks, "canary")

    pair.service.stream = stream
    named = {"x-request-id": "mine"}
    async with pair.http.stream("POST", PATH, json=STREAMED, headers=named) as response:
        body = await broken(response.aiter_raw())

    error = json.loads(events(body)[-1])["error"]
    assert error["code"] == "internal_error"
    assert "mine" in error["message"]
    assert b"canary" not in body


async def test_a_chunk_that_is_not_json_is_a_defect_in_the_stream(pair: Pair) -> None:
    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        yield chunk("a")
        broken = chunk("b")
        broken.extra_json["x"] = "canary\n\n"
        yield broken
        await pair.service.cancelled.wait()

    pair.service.stream = stream
    async with pair.http.stream("POST", PATH, json=STREAMED) as response:
        body = await broken(response.aiter_raw())

    assert contents(events(body)) == "a"
    assert json.loads(events(body)[-1])["error"]["code"] == "internal_error"
    assert b"canary" not in body
    await wait(pair.service.cancelled)


async def test_silence_before_the_first_message_opens_the_stream() -> None:
    async with bridged(silence=0.02) as pair:
        go_on = asyncio.Event()

        async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
            await go_on.wait()
            await fail(context, "UPSTREAM_TIMEOUT")
            yield chunk()

        pair.service.stream = stream
        async with pair.http.stream("POST", PATH, json=STREAMED) as response:
            assert response.status_code == 200
            parts = response.aiter_raw()
            assert (await anext(parts)).startswith(b": keep-alive\n\n")
            go_on.set()
            said = events(await broken(parts))
        assert json.loads(said[-1])["error"]["code"] == "upstream_timeout"
        assert "[DONE]" not in said


async def test_silence_between_messages_is_bridged() -> None:
    async with bridged(silence=0.02) as pair:
        go_on = asyncio.Event()

        async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
            yield chunk("a")
            await go_on.wait()
            yield chunk("b")

        pair.service.stream = stream
        async with pair.http.stream("POST", PATH, json=STREAMED) as response:
            said = b""
            async for part in response.aiter_raw():
                said += part
                if said.count(b": keep-alive\n\n") == 2:
                    go_on.set()
        assert contents(events(said)) == "ab"
        assert events(said)[-1] == "[DONE]"


# ------------------------------------------------------------------------------------- leaving


def silent(service: FakeService) -> None:
    """Make the service send nothing until it is cancelled."""

    async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
        await asyncio.Event().wait()
        raise AssertionError

    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        await asyncio.Event().wait()
        yield chunk()

    service.create, service.stream = create, stream


def endless(service: FakeService) -> None:
    """Make the service send something, then nothing."""

    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        yield chunk("a")
        await asyncio.Event().wait()

    service.stream = stream


@pytest.mark.parametrize("document", [REQUEST, STREAMED])
async def test_leaving_before_the_answer_cancels_the_call(pair: Pair, document: Any) -> None:
    silent(pair.service)
    async with pair.connect() as raw:
        await raw.send(post(document))
        await wait(pair.service.begun)
    await wait(pair.service.cancelled)
    await settled(pair)


async def test_leaving_after_a_large_body_cancels_the_call(pair: Pair) -> None:
    silent(pair.service)
    large = {**REQUEST, "user": "u" * 1_000_000}
    async with pair.connect() as raw:
        await raw.send(post(large))
        await wait(pair.service.begun)
    await wait(pair.service.cancelled)
    await settled(pair)


async def test_leaving_in_the_middle_of_a_stream_cancels_the_call(pair: Pair) -> None:
    endless(pair.service)
    async with pair.connect() as raw:
        await raw.send(post(STREAMED))
        await raw.reader.readuntil(b'"a"')
    await wait(pair.service.cancelled)
    await settled(pair)
    labels = {
        "http_request_method": "POST",
        "http_route": PATH,
        "http_response_status_code": "499",
        "error_type": "CANCELLED",
    }
    assert pair.metric("http_server_request_duration_seconds_count", **labels) == 1


async def test_a_reset_connection_cancels_the_call(pair: Pair) -> None:
    endless(pair.service)
    async with pair.connect() as raw:
        await raw.send(post(STREAMED))
        await raw.reader.readuntil(b'"a"')
        raw.writer.transport.abort()
        await wait(pair.service.cancelled)


async def test_a_second_request_on_the_connection_does_not_hide_a_departure(pair: Pair) -> None:
    silent(pair.service)
    async with pair.connect() as raw:
        await raw.send(post(STREAMED) + post(REQUEST))
        await wait(pair.service.begun)
        await raw.send(post(REQUEST))
    await wait(pair.service.cancelled)
    assert len(pair.service.asked) == 1


def flooding() -> tuple[Stream, list[int]]:
    """Return a handler that sends as much as it can, and its count."""
    said = [0]

    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        while True:
            said[0] += 1
            yield chunk("x" * 4096)

    return stream, said


async def held_up(pair: Pair, said: list[int]) -> None:
    """Wait until a flooding handler is blocked while others are served."""
    async with asyncio.timeout(PATIENCE):
        before = -1
        while said[0] != before:
            before = said[0]
            for _ in range(20):
                await pair.works()


async def test_a_reader_who_does_not_read_holds_the_service_up(pair: Pair) -> None:
    pair.service.stream, said = flooding()
    async with pair.connect(limit=4096) as raw:
        await raw.send(post(STREAMED))
        await held_up(pair, said)
        # Only socket buffers and gRPC windows hold data.
        assert said[0] * 4096 < 32 * 1024 * 1024
    await wait(pair.service.cancelled)


async def test_one_who_reads_slowly_gets_everything(pair: Pair) -> None:
    count = 2000
    pair.service.stream = saying(*(f"{number:04}" + "x" * 4000 for number in range(count)))
    async with pair.http.stream("POST", PATH, json=STREAMED) as response:
        parts = []
        async for part in response.aiter_raw(1024):
            parts.append(part)
            await asyncio.sleep(0)
    said = events(b"".join(parts))
    numbers = [json.loads(part)["choices"][0]["delta"]["content"][:4] for part in said[:-2]]
    assert numbers == [f"{number:04}" for number in range(count)]


async def test_a_reader_who_never_reads_is_cut_off_in_the_end() -> None:
    async with bridged(CHAT_BRIDGE_TIMEOUT="0.3", change=_short_exchange) as pair:
        pair.service.stream, _ = flooding()
        async with pair.connect(limit=4096) as raw:
            await raw.send(post(STREAMED))
            await wait(pair.service.cancelled)
            await settled(pair)


def _short_exchange(limits: Limits) -> Limits:
    return replace(limits, exchange_seconds=0.6)


async def settled(pair: Pair) -> None:
    """Wait until no exchange runs and no stream is open."""
    while pair.bridge.running:
        await pair.http.get("/healthz")  # no deadline of a call applies to it
    assert pair.metric("chat_bridge_streams_open") == 0


# --------------------------------------------------------------------------------------- drain


async def test_a_drain_lets_streams_finish(pair: Pair) -> None:
    go_on = asyncio.Event()

    async def stream(params: ChatCompletionParams, context: Any) -> Chunks:
        yield chunk("a")
        await go_on.wait()
        yield chunk("b")

    pair.service.stream = stream
    async with pair.http.stream("POST", PATH, json=STREAMED) as response:
        parts = response.aiter_raw()
        said = await anext(parts)
        stopping = asyncio.create_task(pair.bridge.stop(delay=0, grace=PATIENCE))
        await closed_to_new(pair)
        go_on.set()
        said += b"".join([part async for part in parts])
    await stopping
    assert (contents(events(said)), events(said)[-1]) == ("ab", "[DONE]")


async def test_what_a_drain_cuts_off_is_told_so(pair: Pair) -> None:
    endless(pair.service)
    async with pair.http.stream("POST", PATH, json=STREAMED) as response:
        parts = response.aiter_raw()
        said = await anext(parts)
        stopping = asyncio.create_task(pair.bridge.stop(delay=0, grace=0))
        said += await broken(parts)
    await stopping
    assert json.loads(events(said)[-1])["error"]["code"] == "draining"
    assert "[DONE]" not in events(said)
    await wait(pair.service.cancelled)


async def test_what_a_drain_cuts_off_before_its_answer_has_a_status(pair: Pair) -> None:
    silent(pair.service)
    asking = asyncio.create_task(pair.http.post(PATH, json=REQUEST))
    await wait(pair.service.begun)
    await pair.bridge.stop(delay=0, grace=0)
    response = await asking

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "draining"
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["connection"] == "close"


async def test_a_drain_does_not_wait_for_one_who_does_not_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_AFTER_GRACE", 0.05)
    pair.service.stream, said = flooding()
    async with pair.connect(limit=4096) as raw:
        await raw.send(post(STREAMED))
        await held_up(pair, said)
        await pair.bridge.stop(delay=0, grace=0)
    await wait(pair.service.cancelled)
    assert pair.bridge.running == 0


async def test_during_the_delay_the_bridge_serves_but_is_not_ready(pair: Pair) -> None:
    stopping = asyncio.create_task(pair.bridge.stop(delay=PATIENCE))
    await asyncio.sleep(0)
    response = await pair.http.get("/readyz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
    await pair.works()
    pair.bridge.hurry()
    await stopping


async def test_during_the_delay_each_answer_closes_its_connection(pair: Pair) -> None:
    # If a connection stays open until the delay ends, its next request fails with a reset.
    before = await pair.http.get("/healthz")
    stopping = asyncio.create_task(pair.bridge.stop(delay=PATIENCE))
    await asyncio.sleep(0)
    during = [await pair.http.get("/healthz"), await pair.http.post(PATH, json=STREAMED)]
    pair.bridge.hurry()
    await stopping
    assert before.headers.get("connection") is None
    assert [answer.headers.get("connection") for answer in during] == ["close", "close"]


async def test_what_began_before_the_delay_closes_its_connection_too(pair: Pair) -> None:
    may_answer = asyncio.Event()
    at_once = pair.service.create

    async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
        await may_answer.wait()
        return await at_once(params, context)

    pair.service.create = create
    asking = asyncio.create_task(pair.http.post(PATH, json=REQUEST))
    await wait(pair.service.begun)
    stopping = asyncio.create_task(pair.bridge.stop(delay=PATIENCE))
    await asyncio.sleep(0)
    may_answer.set()
    answer = await asking
    pair.bridge.hurry()
    await stopping
    assert (answer.status_code, answer.headers.get("connection")) == (200, "close")


async def closed_to_new(pair: Pair) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", pair.bridge.port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.sleep(0)

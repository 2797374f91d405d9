"""Every golden document over gRPC: the received document equals the sent one, except for these.

caller -> model, stream, stream_options, the output limit -> upstream
caller <- model <- upstream
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import pytest

from chatcompletion import openai_json
from service.simulator import RequestRecord, SimulatorServer
from tests.support.golden import Golden
from tests.support.golden_requests import REQUESTS
from tests.support.golden_responses import CHUNKS, COMPLETIONS
from tests.support.grpc_client import params
from tests.support.json_equality import parse
from tests.support.running_service import Running, service, simulator

UPSTREAM_NAME: Final = "vendor/model:tag"
LIMITS: Final = ("max_tokens", "max_completion_tokens")

REFUSED: Final[Mapping[tuple[str, bool], str]] = {
    # (golden request, streamed): the param of the rule that it violates in this form
    ("streamed", False): "stream_options",
    ("empty objects", False): "stream_options",
}
UNPAIRED: Final = frozenset({"half of a surrogate pair", "half of a surrogate pair as a name"})
"""Golden requests with half of a surrogate pair, which no upstream receives."""
NOT_COMPLETIONS: Final = frozenset({"no choices"})
"""Golden completions that the service does not accept."""


def _named(goldens: tuple[Golden, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("golden", goldens, ids=[golden.name for golden in goldens])


def test_the_exceptions_are_golden_documents() -> None:
    assert {name for name, _ in REFUSED} <= {golden.name for golden in REQUESTS}
    assert {golden.name for golden in COMPLETIONS} >= NOT_COMPLETIONS


def _expected(golden: Golden, *, streamed: bool) -> Any:
    """Return the document that the upstream should receive for a golden request."""
    expected = parse(golden.json)
    expected["model"] = UPSTREAM_NAME
    options = expected.pop("stream_options", None) or {}
    if expected.pop("stream", None) is False and not streamed:
        expected["stream"] = False
    if streamed:
        expected["stream"] = True
        expected["stream_options"] = {**options, "include_usage": True}
    asked = [expected.pop(name, None) for name in LIMITS]
    expected["max_tokens"] = next(filter(None, asked), parse("1024"))
    return expected


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
@_named(REQUESTS)
async def test_the_upstream_receives_what_the_caller_sent(golden: Golden, streamed: bool) -> None:
    name = json.loads(golden.json)["model"]
    request = openai_json.decode_request(golden.json.encode())
    async with simulator() as upstream, service({name: UPSTREAM_NAME}, upstream) as running:
        # Only the request matters; the response is always the same.
        upstream.reply_with(UPSTREAM_NAME, body=_ANSWER)
        upstream.stream_with(UPSTREAM_NAME, [_closing({})])
        if golden.name in UNPAIRED:
            failure = await running.client.refusal(request, streamed=streamed)
            assert "half of a surrogate pair" in failure.message
            assert len(upstream.records) == 0
            return
        if (golden.name, streamed) in REFUSED:
            failure = await running.client.refusal(request, streamed=streamed)
            assert failure.reason == "INVALID_REQUEST"
            assert failure.error.param == REFUSED[golden.name, streamed]
            assert len(upstream.records) == 0
            return
        if streamed:
            assert (await running.client.collect(request)).failure is None
        else:
            await running.client.create(request)
        record: RequestRecord = upstream.records[0]
        assert parse(record.body) == _expected(golden, streamed=streamed)


@_named(COMPLETIONS)
async def test_the_caller_receives_the_completion_that_the_upstream_sent(golden: Golden) -> None:
    async with simulator() as upstream, _service(upstream) as running:
        upstream.reply_with(UPSTREAM_NAME, body=golden.json.encode())
        if golden.name in NOT_COMPLETIONS:
            failure = await running.client.refusal("public")
            assert failure.reason == "UPSTREAM_INVALID_RESPONSE"
            return
        completion = await running.client.create("public")
        expected = {**parse(golden.json), "model": "public"}
        assert parse(openai_json.encode_completion(completion)) == expected


@_named(CHUNKS)
async def test_the_caller_receives_the_chunk_that_the_upstream_sent(golden: Golden) -> None:
    chunk = json.loads(golden.json)
    async with simulator() as upstream, _service(upstream) as running:
        upstream.stream_with(UPSTREAM_NAME, [golden.json.encode(), _closing(chunk)])
        request = params("public", stream_options={"include_usage": True})
        result = await running.client.collect(request)
        assert result.failure is None
        received, closing, *counted = result.chunks
        assert all(chunk.usage.extra_json["estimated"] == "true" for chunk in counted)
        expected = {**parse(golden.json), "model": "public"}
        assert parse(openai_json.encode_chunk(received)) == expected
        assert parse(openai_json.encode_chunk(closing)) == {
            **parse(_closing(chunk)),
            "model": "public",
        }


async def test_all_chunks_in_one_stream() -> None:
    # The chunks differ, so that a lost, repeated or moved one is detected.
    sent = [golden.json.encode() for golden in CHUNKS]
    everything = {"choices": [c for text in sent for c in json.loads(text)["choices"]]}
    sent.append(_closing(everything))
    async with simulator() as upstream, _service(upstream) as running:
        upstream.stream_with(UPSTREAM_NAME, sent)
        request = params("public", stream_options={"include_usage": True})
        result = await running.client.collect(request)
        assert result.failure is None
        received = [parse(openai_json.encode_chunk(chunk)) for chunk in result.chunks]
        assert received == [{**parse(text), "model": "public"} for text in sent]


def _service(upstream: SimulatorServer) -> AbstractAsyncContextManager[Running]:
    """Return a service without receipts, which are not in the golden documents."""
    return service({"public": UPSTREAM_NAME}, upstream, receipts=False)


def _closing(chunk: Mapping[str, Any]) -> bytes:
    """Return a chunk that ends every choice in another chunk."""
    indexes = {choice.get("index", 0) for choice in chunk.get("choices", ())} or {0}
    choices = [{"index": i, "delta": {}, "finish_reason": "stop"} for i in sorted(indexes)]
    document = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps({**document, "choices": choices}).encode()


_ANSWER: Final = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi"},
                "finish_reason": "stop",
            }
        ],
    }
).encode()

from typing import Any

import pytest

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionChunk, ChunkChoice
from service.call_trace import CallTrace, method_attributes, request_attributes
from tests.support.samples import MODEL, params, record
from tests.support.spans import RecordedSpan

SECRET = "a text that no span may have"


def traced(now: int = 0) -> tuple[CallTrace, RecordedSpan]:
    span: Any = RecordedSpan()
    return CallTrace(span, lambda: now), span


def test_settings_of_a_request_are_attributes_and_texts_are_not() -> None:
    asked = params(
        messages=[{"role": "user", "content": SECRET}],
        temperature=0.5,
        top_p=0.25,
        frequency_penalty=1,
        presence_penalty=-1,
        seed=7,
        n=2,
        max_completion_tokens=32,
        reasoning_effort="low",
        response_format={"type": "json_object"},
        stop=[SECRET],
        user=SECRET,
    )

    found = request_attributes(asked, MODEL, streamed=True)
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": MODEL.upstream.name,
        "gen_ai.request.model": MODEL.upstream_model,
        "gen_ai.request.stream": True,
        "server.address": "vllm.example",
        "server.port": 8443,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.25,
        "gen_ai.request.frequency_penalty": 1.0,
        "gen_ai.request.presence_penalty": -1.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.max_tokens": 32,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.output.type": "json",
    }


def test_the_name_of_a_method_is_the_full_one() -> None:
    name = "chatcompletion.v1.ModelService/ListModels"

    assert method_attributes(name) == {"rpc.system.name": "grpc", "rpc.method": name}


def test_a_stream_is_told_as_the_upstream_sent_it() -> None:
    trace, span = traced()
    assert trace.ask(params(), MODEL, streamed=True) == (
        ("traceparent", f"chat {MODEL.upstream_model}"),
    )
    trace._now = lambda: 250_000_000
    for reason in ("", "stop"):
        choice = ChunkChoice(index=0, finish_reason=reason)
        trace.hear(ChatCompletionChunk(id="c", model="m-2", choices=[choice]))
    trace._now = lambda: 900_000_000
    trace.close()
    trace.end(
        record(
            method="StreamChatCompletion",
            prompt_tokens=3,
            completion_tokens=2,
            upstream_status=200,
            upstream_attempts=2,
            charge=5,
            account="a",
            key_name="k",
            model="public",
        )
    )

    [upstream] = span.below
    told = {key: value for key, value in upstream.attributes.items() if "request" not in key}
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": MODEL.upstream.name,
        "gen_ai.response.model": "m-2",
        "gen_ai.response.id": "c",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "chat.usage.estimated": False,
        "http.response.status_code": 200,
        "server.address": "vllm.example",
        "server.port": 8443,
    }
    assert upstream.attributes["http.request.resend_count"] == 1
    assert (upstream.at, upstream.failed) == (900_000_000, False)
    assert span.attributes == {
        "rpc.response.status_code": "OK",
        "chat.request_id": "req_1",
        "chat.account": "a",
        "chat.key": "k",
        "chat.charge_nano_credits": 5,
        "chat.model": "public",
    }
    assert span.failed is False


@pytest.mark.parametrize(
    ("reason", "code", "served", "asked"),
    [
        ("UPSTREAM_ERROR", "INTERNAL", True, True),
        ("CANCELLED", "CANCELLED", False, True),
        ("STORE_UNAVAILABLE", "UNAVAILABLE", True, False),
    ],
)
def test_a_failure_is_an_error_of_the_parts_at_fault(
    reason: str, code: str, served: bool, asked: bool
) -> None:
    trace, span = traced()
    trace.ask(params(), MODEL, streamed=False)
    trace.end(record(reason=reason))

    assert (span.failed, span.below[0].failed) == (served, asked)
    assert span.attributes["error.type"] == reason
    assert span.attributes["rpc.response.status_code"] == code
    assert ("error.type" in span.below[0].attributes) is asked


def test_a_rejected_call_has_one_span() -> None:
    trace, span = traced()
    trace.end(record(reason="INVALID_API_KEY"))

    assert span.below == []
    assert (span.failed, span.attributes["error.type"]) == (False, "INVALID_API_KEY")

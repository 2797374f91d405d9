"""Spans and metrics of bridge and service, as a real OTLP receiver gets them."""

import json
import logging
from typing import Any, Final

import httpx
import pytest

from tests.support.grpc_client import KEY
from tests.support.otlp import Received, ReceivedSpan, receiver, values
from tests.support.running_bridge import PATH, VIAS, Via, bridge
from tests.support.running_service import service, simulator

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = f"00-{TRACE}-b7ad6b7169203331-01"
SECRET: Final = "a text that no span may have"
REQUEST: Final = {
    "model": "any",
    "messages": [{"role": "user", "content": SECRET}],
    "temperature": 0.5,
    "max_tokens": 32,
    "stop": [SECRET],
}


@pytest.fixture(params=VIAS)
def via(request: pytest.FixtureRequest) -> Via:
    kind: Via = request.param
    return kind


async def traced(
    via: Via,
    *,
    model: str = "any",
    headers: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    **members: Any,
) -> tuple[Received, dict[str, str], int]:
    """Send one request through bridge and service, and return what was received."""
    async with receiver() as otlp, simulator() as upstream:
        exports = {"otel_endpoint": f"http://{otlp.address}", **(settings or {})}
        async with (
            service({"any": model}, upstream, **exports) as running,
            bridge(running, via=via, **exports) as door,
            httpx.AsyncClient(base_url=f"http://{door.address}", trust_env=False) as http,
        ):
            sent = {"authorization": f"Bearer {KEY}", **(headers or {})}
            response = await http.post(PATH, json={**REQUEST, **members}, headers=sent)
            await running.rests()
        asked = dict(upstream.records[-1].headers) if len(upstream.records) else {}
        return otlp, asked, response.status_code


def by_kind(spans: list[ReceivedSpan]) -> list[tuple[str, str]]:
    return [(each.resource["service.name"], each.span.name) for each in spans]


async def test_a_request_has_a_span_in_each_part(via: Via) -> None:
    otlp, _, _ = await traced(via)
    door, call, served, asked = otlp.spans()

    assert by_kind([door, call, served, asked]) == [
        ("chatcompletion-bridge", "POST /v1/chat/completions"),
        ("chatcompletion-bridge", "chatcompletion.v1.ChatCompletionService/CreateChatCompletion"),
        ("chatcompletion-service", "chatcompletion.v1.ChatCompletionService/CreateChatCompletion"),
        ("chatcompletion-service", "chat any"),
    ]
    assert [each.span.kind for each in (door, call, served, asked)] == [2, 3, 2, 3]
    assert {each.span.trace_id for each in otlp.spans()} == {door.span.trace_id}
    assert door.span.parent_span_id == b""
    parents = (call.span.parent_span_id, served.span.parent_span_id, asked.span.parent_span_id)
    assert parents == (door.span.span_id, call.span.span_id, served.span.span_id)
    ends = [each.span.end_time_unix_nano for each in (asked, served, call, door)]
    assert ends == sorted(ends)


async def test_the_attributes_are_those_of_the_conventions(via: Via) -> None:
    otlp, _, _ = await traced(via)
    door, call, served, asked = (each.attributes for each in otlp.spans())

    request_id = door.pop("chat.request_id")
    assert door == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }
    rpc = {
        "rpc.system.name": "grpc",
        "rpc.method": "chatcompletion.v1.ChatCompletionService/CreateChatCompletion",
        "rpc.response.status_code": "OK",
    }
    assert call == rpc
    charge = served.pop("chat.charge_nano_credits")
    assert charge >= 0
    assert served == {
        **rpc,
        "chat.request_id": request_id,
        "chat.account": "bootstrap",
        "chat.key": served["chat.key"],
        "chat.model": "any",
    }
    assert asked.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert asked.pop("gen_ai.usage.input_tokens") > 0
    assert asked.pop("gen_ai.usage.output_tokens") > 0
    assert asked.pop("server.port") > 0
    assert asked == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "upstream",
        "gen_ai.request.model": "any",
        "gen_ai.request.stream": False,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 32,
        "gen_ai.response.model": "any",
        "gen_ai.response.finish_reasons": ("length",),
        "http.response.status_code": 200,
        "chat.usage.estimated": False,
        "server.address": "127.0.0.1",
    }


async def test_a_stream_has_its_time_to_the_first_chunk_and_no_text(via: Via) -> None:
    otlp, _, _ = await traced(via, stream=True)
    asked = otlp.spans()[-1].attributes

    assert asked["gen_ai.request.stream"] is True
    assert asked["gen_ai.response.time_to_first_chunk"] > 0
    assert asked["gen_ai.response.finish_reasons"] == ("length",)
    assert SECRET not in str(otlp.traces)
    assert KEY not in str(otlp.traces)


async def test_the_trace_of_the_caller_goes_on_to_the_upstream(via: Via) -> None:
    context = {"traceparent": PARENT, "tracestate": "a=1,b=2", "baggage": "tenant=acme"}
    otlp, upstream, _ = await traced(via, headers=context)
    spans = otlp.spans()

    assert {each.span.trace_id.hex() for each in spans} == {TRACE}
    assert spans[0].span.parent_span_id.hex() == "b7ad6b7169203331"
    assert upstream["traceparent"] == f"00-{TRACE}-{spans[-1].span.span_id.hex()}-01"
    assert (upstream["tracestate"], upstream["baggage"]) == ("a=1,b=2", "tenant=acme")


async def test_a_caller_that_does_not_sample_has_no_spans(via: Via) -> None:
    otlp, upstream, _ = await traced(via, headers={"traceparent": f"{PARENT[:-2]}00"})

    assert otlp.spans() == []
    assert upstream["traceparent"][:36] == PARENT[:36]
    assert upstream["traceparent"][-2:] == "00"


async def test_the_sampler_decides_about_traces_that_begin_here(via: Via) -> None:
    off = {"otel_sampler": "parentbased_always_off"}

    assert (await traced(via, settings=off))[0].spans() == []
    otlp, _, _ = await traced(via, settings=off, headers={"traceparent": PARENT})
    assert len(otlp.spans()) == 4


async def test_a_failure_of_the_upstream_is_in_every_span(via: Via) -> None:
    otlp, _, status = await traced(via, model="sim-fault:500")
    spans = otlp.spans()

    assert status == 502
    assert {each.attributes["error.type"] for each in spans} == {"UPSTREAM_ERROR"}
    assert {each.span.status.code for each in spans} == {2}
    assert spans[-1].attributes["chat.upstream.cause"] == "status"
    assert spans[-1].attributes["http.response.status_code"] == 500


async def test_a_mistake_of_the_caller_is_no_error_of_the_server(via: Via) -> None:
    otlp, _, status = await traced(via, headers={"authorization": "Bearer wrong"})
    door, call, served = otlp.spans()

    assert status == 401
    assert [each.span.status.code for each in (door, call, served)] == [0, 2, 0]
    assert served.attributes["rpc.response.status_code"] == "UNAUTHENTICATED"


async def test_the_log_lines_have_the_ids(via: Via, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        otlp, _, _ = await traced(via)
    door, _, served, _ = otlp.spans()

    lines = {
        record.message: getattr(record, "chat_fields", {})
        for record in caplog.records
        if record.message in {"call", "request"}
    }
    for line, each in ((lines["request"], door), (lines["call"], served)):
        assert line["trace_id"] == each.span.trace_id.hex()
        assert line["span_id"] == each.span.span_id.hex()


async def test_a_receiver_that_is_away_harms_no_call(via: Via) -> None:
    async with simulator() as upstream:
        away: dict[str, Any] = {"otel_endpoint": "http://127.0.0.1:1"}
        async with (
            service({"any": "any"}, upstream, **away) as running,
            bridge(running, via=via, **away) as door,
            httpx.AsyncClient(base_url=f"http://{door.address}", trust_env=False) as http,
        ):
            headers = {"authorization": f"Bearer {KEY}"}
            response = await http.post(PATH, json=REQUEST, headers=headers)
    assert response.status_code == 200
    assert json.loads(response.content)["choices"]


async def test_metrics_arrive_with_the_names_of_the_conventions(via: Via) -> None:
    otlp, _, _ = await traced(via, settings={"otel_metric_interval": 100})
    last = {
        (values(of.resource.attributes)["service.name"], metric.name): metric
        for request in otlp.metrics
        for of in request.resource_metrics
        for scope in of.scope_metrics
        for metric in scope.metrics
    }

    duration = last["chatcompletion-service", "gen_ai.server.request.duration"]
    [point] = duration.histogram.data_points
    assert values(point.attributes) == {
        "rpc.method": "CreateChatCompletion",
        "gen_ai.request.model": "any",
    }
    assert (point.count, duration.unit) == (1, "s")
    [request] = last["chatcompletion-bridge", "http.server.request.duration"].histogram.data_points
    assert values(request.attributes)["http.response.status_code"] == 200
    assert last["chatcompletion-service", "process.cpu.time"].sum.is_monotonic

from typing import Any

import pytest

from process.trace_context import Carried
from restbridge.exchange_trace import ExchangeTrace, begin
from tests.support.spans import RecordedSpan

RPC = "chatcompletion.v1.ModelService/ListModels"


class FakeTracing:
    def server(self, name: str, received: Carried, attributes: Any) -> RecordedSpan:
        return RecordedSpan(name, {**attributes, "received": received})


def ended(reason: str = "", status: int = 200, *, calls: bool = True) -> RecordedSpan:
    span: Any = RecordedSpan()
    trace = ExchangeTrace(span)
    if calls:
        assert trace.call(RPC) == (("traceparent", RPC),)
    if not reason:
        trace.called()
    trace.end(method="GET", route="/v1/models", status=status, reason=reason, request_id="req_1")
    found: RecordedSpan = span
    return found


def test_a_request_has_the_headers_of_its_caller() -> None:
    tracing: Any = FakeTracing()
    trace = begin(tracing, (("baggage", "a=1"),))

    assert (trace.trace_id, trace.span_id) == ("t", "s")
    assert trace._span.attributes == {  # type: ignore[attr-defined]
        "url.scheme": "http",
        "received": (("baggage", "a=1"),),
    }


def test_a_request_and_its_call_end_once() -> None:
    span = ended()

    assert span.name == "GET /v1/models"
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/models",
        "http.response.status_code": 200,
        "chat.request_id": "req_1",
    }
    assert span.below[0].attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": RPC,
        "rpc.response.status_code": "OK",
    }
    assert (span.ended, span.below[0].ended) == ([False], [False])


@pytest.mark.parametrize(
    ("reason", "status", "is_ours"), [("INVALID_API_KEY", 401, False), ("OVERLOADED", 503, True)]
)
def test_a_failure_is_one_of_the_server_from_500(reason: str, status: int, is_ours: bool) -> None:
    span = ended(reason, status)

    assert (span.ended, span.below[0].ended) == ([is_ours], [True])
    assert span.attributes["error.type"] == span.below[0].attributes["error.type"] == reason


def test_a_request_without_a_call_has_one_span() -> None:
    assert ended("METHOD_NOT_ALLOWED", 405, calls=False).below == []

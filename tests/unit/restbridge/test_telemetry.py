import logging

import pytest

from restbridge.error_responses import LEFT, ErrorResponse, of_reason
from restbridge.telemetry import Telemetry
from tests.unit.restbridge.exchanges import exchange

COUNT = "http_server_request_duration_seconds_count"


@pytest.mark.parametrize(
    ("method", "status", "failure", "labels"),
    [
        ("GET", 200, None, ("GET", "200", "")),
        ("BREW", 405, of_reason("METHOD_NOT_ALLOWED"), ("_OTHER", "405", "METHOD_NOT_ALLOWED")),
        ("POST", 0, LEFT, ("POST", "499", "CANCELLED")),
        ("POST", 200, LEFT, ("POST", "499", "CANCELLED")),
        ("POST", 200, of_reason("UPSTREAM_ERROR"), ("POST", "200", "UPSTREAM_ERROR")),
    ],
)
async def test_an_exchange_is_counted_once_by_bounded_labels(
    method: str, status: int, failure: ErrorResponse | None, labels: tuple[str, str, str]
) -> None:
    telemetry = Telemetry()
    telemetry.begin()
    of = exchange(status=status, failure=failure)
    telemetry.end(of, method=method, route="/r", now=2.0)
    names = ("http_request_method", "http_response_status_code", "error_type")
    sample = dict(zip(names, labels, strict=True), http_route="/r")
    assert telemetry.registry.get_sample_value(COUNT, sample) == 1
    assert telemetry.registry.get_sample_value("http_server_active_requests") == 0


async def test_a_stream_is_told_with_its_first_event(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    of = exchange(status=200, first_event=0.25, events=7)
    with caplog.at_level(logging.INFO):
        telemetry.end(of, method="POST", route="/r", now=2.0)
    [record] = caplog.records
    assert record.__dict__["chat_fields"] == {
        "request_id": "req_1",
        "method": "POST",
        "route": "/r",
        "status": 200,
        "reason": "OK",
        "duration_ms": 2000.0,
        "first_event_ms": 250.0,
        "events": 7,
    }
    assert telemetry.registry.get_sample_value("chat_bridge_events_total") == 7

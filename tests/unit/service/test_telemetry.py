from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import generate_latest

import process.metrics  # noqa: F401  (switches times of creation off)
from service.telemetry import UNKNOWN_MODEL, CallRecord, Telemetry
from service.upstream_report import Cause, UpstreamReport
from tests.support.samples import record

DURATION = "gen_ai_server_request_duration_seconds"
FIRST = "gen_ai_server_time_to_first_token_seconds"
PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"
TOKENS = "gen_ai_client_token_usage"


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


Lines = Callable[[], list[dict[str, Any]]]


def read(lines: Lines) -> dict[str, Any]:
    (line,) = lines()
    return line


def streamed(**members: Any) -> CallRecord:
    call = record(method="StreamChatCompletion", started=10.0, model="default", **members)
    for now in (10.25, 10.5, 11.25):
        call.note_chunks(1, now)
    return call


def test_a_call_is_in_flight_from_its_begin_to_its_end() -> None:
    telemetry = Telemetry()
    call = record()
    telemetry.begin(call)
    telemetry.begin(record())
    assert value(telemetry, "chat_calls_in_flight", rpc_method=call.method) == 2

    telemetry.end(call, 1.0)
    assert value(telemetry, "chat_calls_in_flight", rpc_method=call.method) == 1


@pytest.mark.parametrize("reason", ["", "UPSTREAM_TIMEOUT"])
def test_a_call_is_counted_by_method_model_and_reason(reason: str) -> None:
    telemetry = Telemetry()
    telemetry.end(record(started=1.0, model="default", reason=reason), 3.5)
    labels = {
        "rpc_method": "CreateChatCompletion",
        "gen_ai_request_model": "default",
        "error_type": reason,
    }

    assert value(telemetry, f"{DURATION}_count", **labels) == 1
    assert value(telemetry, f"{DURATION}_sum", **labels) == 2.5


def test_a_model_that_is_not_known_has_one_label() -> None:
    telemetry = Telemetry()
    telemetry.end(record(reason="MODEL_NOT_FOUND"), 1.0)

    assert value(
        telemetry,
        f"{DURATION}_count",
        rpc_method="CreateChatCompletion",
        gen_ai_request_model=UNKNOWN_MODEL,
        error_type="MODEL_NOT_FOUND",
    )


def test_chunks_are_timed() -> None:
    telemetry = Telemetry()
    telemetry.end(streamed(), 12.0)

    assert value(telemetry, f"{FIRST}_sum", gen_ai_request_model="default") == 0.25
    assert value(telemetry, f"{PER_TOKEN}_sum", gen_ai_request_model="default") == 0.5
    assert value(telemetry, f"{PER_TOKEN}_count", gen_ai_request_model="default") == 1


def test_names_that_a_pattern_matches_share_its_label(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    telemetry = Telemetry()
    for name in ("local/a", "local/b"):
        record = streamed()
        record.model, record.pattern = name, "local/*"
        telemetry.end(record, 12.0)

    assert value(telemetry, f"{FIRST}_count", gen_ai_request_model="local/*") == 2
    assert value(telemetry, f"{FIRST}_count", gen_ai_request_model="local/a") is None
    logged = [record.__dict__["chat_fields"]["model"] for record in caplog.records]
    assert logged == ["local/a", "local/b"]


def test_one_chunk_has_no_time_between() -> None:
    telemetry = Telemetry()
    call = record(model="default")
    call.note_chunks(1, 0.5)
    telemetry.end(call, 1.0)

    assert value(telemetry, f"{FIRST}_count", gen_ai_request_model="default") == 1
    assert value(telemetry, f"{PER_TOKEN}_count", gen_ai_request_model="default") is None


def test_a_call_without_chunks_has_no_first_one(lines: Lines) -> None:
    telemetry = Telemetry()
    telemetry.end(record(model="default"), 1.0)

    assert value(telemetry, f"{FIRST}_count", gen_ai_request_model="default") is None
    assert read(lines).keys().isdisjoint({"first_token_ms", "chunks", "prompt_tokens"})


def test_tokens_are_counted_in_and_out() -> None:
    telemetry = Telemetry()
    telemetry.end(record(model="default", prompt_tokens=11, completion_tokens=7), 1.0)
    telemetry.end(record(model="default"), 1.0)

    for kind, count in (("input", 11), ("output", 7)):
        labels = {"gen_ai_request_model": "default", "gen_ai_token_type": kind}
        assert value(telemetry, f"{TOKENS}_sum", **labels) == count
        assert value(telemetry, f"{TOKENS}_count", **labels) == 1


@pytest.mark.parametrize(("attempts", "retries"), [(0, 0), (1, 0), (2, 1)])
def test_retries_are_counted(attempts: int, retries: int) -> None:
    telemetry = Telemetry()
    telemetry.end(record(upstream_attempts=attempts), 1.0)

    assert value(telemetry, "chat_upstream_retries_total") == retries


def test_streams_that_were_cut_are_counted_by_model(lines: Lines) -> None:
    telemetry = Telemetry()
    telemetry.end(record(model="m", overran=True), 1.0)

    assert read(lines)["overran"] is True
    name = "chat_upstream_overruns_total"
    assert value(telemetry, name, gen_ai_request_model="m") == 1


def test_mended_documents_are_counted_by_model(lines: Lines) -> None:
    telemetry = Telemetry()
    telemetry.end(record(model="m", mended=3), 1.0)
    assert read(lines)["mended"] == 3
    assert value(telemetry, "chat_upstream_mended_total", gen_ai_request_model="m") == 3


def test_streams_and_closings_are_measured() -> None:
    telemetry = Telemetry()
    with telemetry.upstream_streams.track_inprogress():
        assert value(telemetry, "chat_upstream_streams_open") == 1
    telemetry.upstream_closed(0.003)

    assert value(telemetry, "chat_upstream_streams_open") == 0
    assert value(telemetry, "chat_cancel_to_upstream_close_seconds_sum") == 0.003


def test_settlements_that_are_in_no_store_are_counted() -> None:
    telemetry = Telemetry()
    telemetry.settlements_lost(1)
    telemetry.settlements_rejected(3)

    assert value(telemetry, "chat_settlements_lost_total") == 1
    assert value(telemetry, "chat_settlements_rejected_total") == 3


def test_each_process_has_metrics_of_its_own() -> None:
    Telemetry()
    Telemetry()


def test_metrics_have_the_names_that_are_documented() -> None:
    names = {metric.name for metric in Telemetry().registry.collect()}

    assert names == {
        *(DURATION, FIRST, PER_TOKEN, TOKENS, "chat_calls_in_flight"),
        *("chat_upstream_streams_open", "chat_upstream_retries"),
        *("chat_cancel_to_upstream_close_seconds", "chat_usage_above_hold_nano_credits"),
        *("chat_settlements_lost", "chat_settlements_rejected", "chat_upstream_overruns"),
        *("chat_upstream_key_refusals", "chat_upstream_fallbacks", "chat_upstream_calls"),
        "chat_upstream_breaker_state",
        *("chat_upstream_mended", "chat_upstream_failures", "chat_store_up"),
        *("chat_charge_nano_credits", "chat_holds_open", "chat_settlements_waiting"),
        *("chat_upstream_request_duration_seconds", "chat_journal_bytes"),
        *("chat_events_pending", "chat_events_dead"),
        *("chat_events_oldest_age_seconds", "chat_events_attempts"),
    }


def test_a_call_is_one_line(lines: Lines) -> None:
    call = streamed(
        reason="UPSTREAM_TRUNCATED",
        account="acme",
        key_name="bootstrap",
        upstream_attempts=2,
        prompt_tokens=3,
        completion_tokens=2,
        estimated=True,
    )
    Telemetry().end(call, 12.3456)
    line = read(lines)

    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "service.telemetry",
        "event": "call",
        "request_id": "req_1",
        "method": "StreamChatCompletion",
        "model": "default",
        "reason": "UPSTREAM_TRUNCATED",
        "duration_ms": 2345.6,
        "account": "acme",
        "key": "bootstrap",
        "upstream_attempts": 2,
        "first_token_ms": 250.0,
        "chunks": 3,
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "estimated": True,
    }


def test_a_success_says_ok(lines: Lines) -> None:
    Telemetry().end(record(), 1.0)

    assert read(lines)["reason"] == "OK"


def test_violations_are_logged_by_their_paths(lines: Lines) -> None:
    Telemetry().end(record(violations=("messages[0].role", "n")), 1.0)

    assert read(lines)["violations"] == ["messages[0].role", "n"]


@pytest.mark.parametrize(
    ("reason", "cause", "level"),
    [
        ("UPSTREAM_ACCOUNT", "account", "error"),
        ("UPSTREAM_ERROR", "model", "error"),
        ("UPSTREAM_TIMEOUT", "timeout", "warning"),
        ("UPSTREAM_RATE_LIMITED", "rate_limit", "warning"),
        ("INVALID_REQUEST", "request", "info"),
    ],
)
def test_a_failure_of_the_upstream_is_logged_and_counted(
    reason: str, cause: Cause, level: str, lines: Lines
) -> None:
    telemetry = Telemetry()
    report = UpstreamReport(cause=cause, names=("a_code",), model="their-model")
    call = record(reason=reason, upstream="primary", upstream_status=418, upstream_report=report)
    telemetry.end(call, 1.0)
    line = read(lines)

    assert (line["level"], line["event"], line["reason"]) == (level, "call", reason)
    assert (line["upstream"], line["upstream_status"], line["cause"]) == ("primary", 418, cause)
    assert (line["upstream_names"], line["upstream_model"]) == (["a_code"], "their-model")
    labels = {"upstream": "primary", "cause": cause, "upstream_status": "418"}
    counted = value(telemetry, "chat_upstream_failures_total", **labels)
    assert counted == (None if reason == "INVALID_REQUEST" else 1)


def test_a_defect_is_an_error(lines: Lines) -> None:
    Telemetry().end(record(reason="INTERNAL"), 1.0)

    assert read(lines)["level"] == "error"


def test_a_success_names_its_upstream(lines: Lines) -> None:
    Telemetry().end(record(upstream="primary", upstream_status=200), 1.0)
    line = read(lines)

    assert (line["level"], line["upstream"], line["upstream_status"]) == ("info", "primary", 200)
    assert "cause" not in line


def test_the_settings_that_would_allow_a_call_are_logged(lines: Lines) -> None:
    Telemetry().end(record(violations=("x",), settings=("models.m.allowed_members",)), 1.0)

    assert read(lines)["settings"] == ["models.m.allowed_members"]


def test_the_request_id_is_no_label() -> None:
    telemetry = Telemetry()
    telemetry.begin(record(request_id="id-canary"))
    telemetry.end(record(request_id="id-canary", key_name="key-canary"), 1.0)

    assert b"canary" not in generate_latest(telemetry.registry)


def test_a_charge_is_counted_and_logged(lines: Lines) -> None:
    telemetry = Telemetry()
    telemetry.end(record(model="default", charge=25), 1.0)
    telemetry.end(record(model="default"), 1.0)

    charged = "chat_charge_nano_credits"
    assert value(telemetry, f"{charged}_sum", gen_ai_request_model="default") == 25
    assert value(telemetry, f"{charged}_count", gen_ai_request_model="default") == 1
    first, second = lines()
    assert first["charge"] == 25
    assert "charge" not in second


def test_each_response_of_an_upstream_is_counted_by_its_status(lines: Lines) -> None:
    telemetry = Telemetry()
    call = record(upstream="vllm")
    for status in (200, 200, 0, 599):
        call.upstream_status = status
        telemetry.upstream_responded(call, 0.25)
    telemetry.end(call, 1.0)

    name = "chat_upstream_request_duration_seconds"
    for label, count in {"200": 2, "none": 1, "5xx": 1}.items():
        assert value(telemetry, f"{name}_count", upstream="vllm", status=label) == count
    assert read(lines)["upstream_ms"] == 250


def test_values_are_read_with_each_scrape() -> None:
    telemetry = Telemetry()
    values = {"holds": 1, "settlements": 2, "journal": 3}
    telemetry.watch(
        holds=lambda: values["holds"],
        settlements=lambda: values["settlements"],
        journal=lambda: values["journal"],
    )
    for _ in range(2):
        assert value(telemetry, "chat_holds_open") == values["holds"]
        assert value(telemetry, "chat_settlements_waiting") == values["settlements"]
        assert value(telemetry, "chat_journal_bytes") == values["journal"]
        values = dict.fromkeys(values, 9)


def test_no_series_has_a_time_of_creation() -> None:
    telemetry = Telemetry()
    telemetry.end(record(model="default", charge=1), 1.0)
    assert b"_created" not in generate_latest(telemetry.registry)

import json
import math
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from chatcompletion.openai_json import DecodeError
from chatcompletion.reasons import DOMAIN, RULES
from chatcompletion.v1.error_pb2 import ErrorDetail
from restbridge import error_responses
from restbridge.error_responses import BRIDGE, FOREIGN, REASONS, STATUS_DETAILS, of_call, of_reason
from restbridge.headers import Metadata

ID = "req_1"


def packed(*details: Message) -> tuple[tuple[str, str | bytes], ...]:
    status = status_pb2.Status(code=13, message="from the status")
    for detail in details:
        item = AnyMessage()
        item.Pack(detail)
        status.details.append(item)
    return ((STATUS_DETAILS, status.SerializeToString()),)


def info(reason: str, domain: str = DOMAIN, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def retry(seconds: int, nanos: int = 0) -> error_details_pb2.RetryInfo:
    made = error_details_pb2.RetryInfo()
    made.retry_delay.seconds, made.retry_delay.nanos = seconds, nanos
    return made


def detail(status: int = 418, message: str = "told", **members: Any) -> ErrorDetail:
    made = ErrorDetail(http_status=status)
    made.error.message, made.error.type, made.error.code_text = message, "t", "c"
    for name, value in members.items():
        setattr(made.error, name, value)
    return made


# ------------------------------------------------------------------------------------- the tables


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_has_a_status_and_a_text(reason: str) -> None:
    failure = of_reason(reason)
    assert failure.reason == reason
    assert 400 <= failure.status <= 599
    assert failure.error.message.endswith(".")
    assert failure.error.type
    assert failure.error.code_text
    assert json.loads(failure.body()) == {
        "error": {
            "message": failure.error.message,
            "type": failure.error.type,
            "param": None,
            "code": failure.error.code_text,
        }
    }
    assert b"\n" not in failure.body()


@pytest.mark.parametrize("reason", sorted(RULES))
def test_reasons_of_the_contract_are_told_as_the_contract_says(reason: str) -> None:
    failure, rule = of_reason(reason), RULES[reason]
    assert (failure.status, failure.error.type, failure.error.code_text) == (
        rule.http_status,
        rule.type,
        rule.code,
    )
    assert failure.retryable is rule.retryable


def test_the_tables_do_not_overlap() -> None:
    assert not set(BRIDGE) & set(RULES)
    assert set(FOREIGN.values()) <= REASONS


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_whoever_is_told_503_is_told_when_to_come_back(reason: str) -> None:
    failure = of_reason(reason)
    if failure.status == 503:
        assert failure.retry_after_ms
        assert failure.retryable


def test_an_internal_failure_gives_the_request_id() -> None:
    assert ID in error_responses.internal(ID).error.message


# --------------------------------------------------------------------------- from the gRPC status


@pytest.mark.parametrize("reason", sorted(RULES))
@pytest.mark.parametrize("code", [grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_our_reason_counts_before_the_code(reason: str, code: grpc.StatusCode) -> None:
    failure = of_call(code, "text", exchange_id=ID, trailers=packed(info(reason), detail()))
    assert (failure.reason, failure.status, failure.error.message) == (reason, 418, "told")
    assert failure.retryable is RULES[reason].retryable


@pytest.mark.parametrize("reason", sorted(RULES))
def test_a_reason_alone_is_told_by_the_table(reason: str) -> None:
    failure = of_call(
        grpc.StatusCode.UNKNOWN, "text", exchange_id=ID, trailers=packed(info(reason))
    )
    assert failure.status == RULES[reason].http_status
    assert failure.error.code_text == RULES[reason].code
    assert "text" not in failure.error.message
    assert "from the status" not in failure.error.message


def test_the_error_object_passes_as_it_is() -> None:
    told = detail(param="messages[0].role")
    told.error.extra_json["inner"] = '{"a":1}'
    told.error.code_number = 17
    trailers = packed(info("INVALID_REQUEST"), told)
    failure = of_call(grpc.StatusCode.INVALID_ARGUMENT, "", exchange_id=ID, trailers=trailers)
    assert failure.error == told.error


@pytest.mark.parametrize(("said", "expected"), [("true", True), ("false", False), ("x", False)])
def test_retryable_is_of_this_very_failure(said: str, *, expected: bool) -> None:
    trailers = packed(info("INTERNAL", retryable=said), detail())
    failure = of_call(grpc.StatusCode.INTERNAL, "", exchange_id=ID, trailers=trailers)
    assert failure.retryable is expected


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_a_status_that_is_no_error_is_not_believed(status: int) -> None:
    trailers = packed(info("RATE_LIMITED"), detail(status))
    assert of_call(grpc.StatusCode.INTERNAL, "", exchange_id=ID, trailers=trailers).status == 429


def test_a_reason_that_is_newer_than_the_bridge_is_told_by_its_detail() -> None:
    trailers = packed(info("BRAND_NEW"), detail(451))
    failure = of_call(grpc.StatusCode.INTERNAL, "", exchange_id=ID, trailers=trailers)
    assert (failure.status, failure.error.message, failure.retryable) == (451, "told", None)
    assert failure.reason in REASONS


@pytest.mark.parametrize(
    "trailers",
    [
        (),
        None,
        ((STATUS_DETAILS, b"\xff\xff\xff"),),
        ((STATUS_DETAILS, "text"),),
        packed(info("RATE_LIMITED", domain="elsewhere")),
        packed(info("NO_SUCH_REASON")),
        packed(retry(1)),
    ],
)
def test_what_is_not_ours_falls_back_to_the_code(trailers: Any) -> None:
    failure = of_call(grpc.StatusCode.UNAVAILABLE, "", exchange_id=ID, trailers=trailers)
    assert (failure.reason, failure.status) == ("SERVICE_UNAVAILABLE", 503)


def test_a_detail_of_garbage_falls_back_to_the_code() -> None:
    status = status_pb2.Status()
    item = AnyMessage()
    item.Pack(info("RATE_LIMITED"))
    item.value = b"\xff\xff"
    status.details.append(item)
    trailers = ((STATUS_DETAILS, status.SerializeToString()),)
    failure = of_call(grpc.StatusCode.INTERNAL, "", exchange_id=ID, trailers=trailers)
    assert failure.status == 500


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_no_foreign_code_gives_away_its_text_or_a_429(code: grpc.StatusCode) -> None:
    failure = of_call(code, "canary", exchange_id=ID)
    assert failure.status in {500, 503, 504}
    assert "canary" not in failure.body().decode()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("SERVER: Received message larger than max (2000000 vs. 1000000)", 413),
        ("CLIENT: Sent message larger than max (2000000 vs. 1000)", 413),
        ("Stream removed (CLIENT: Received message larger than max (3 vs. 1))", 500),
        ("received metadata size exceeds soft limit (9556 vs. 8192);  :path:44B", 431),
        ("Stream removed (received metadata size exceeds hard limit (3 vs. 1))", 431),
        ("Concurrent RPC limit exceeded!", 503),
        ("", 503),
    ],
)
def test_grpcs_own_limits_are_told_apart(text: str, status: int) -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert of_call(code, text, exchange_id=ID).status == status


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_a_call_that_the_service_did_not_take_is_retried_and_one_that_it_took_is_not(
    code: grpc.StatusCode,
) -> None:
    untaken = of_call(code, "", exchange_id=ID, metadata=())
    assert (untaken.reason, untaken.status) == ("SERVICE_UNAVAILABLE", 503)
    assert (untaken.retryable, untaken.retry_after_ms) == (True, 1000)

    taken = of_call(code, "", exchange_id=ID, metadata=(("x-request-id", ID),))
    assert (taken.reason, taken.status) == ("SERVICE_UNAVAILABLE", 503)
    assert dict(taken.headers()) == {b"x-should-retry": b"false"}


def test_the_services_own_word_counts_also_for_a_call_that_it_took() -> None:
    failure = of_call(
        grpc.StatusCode.UNAVAILABLE,
        "",
        exchange_id=ID,
        metadata=(("x-request-id", ID),),
        trailers=packed(info("DRAINING"), detail(503)),
    )
    assert (failure.reason, failure.retryable) == ("DRAINING", True)


# --------------------------------------------------------------------------------- the headers


@pytest.mark.parametrize(
    ("delay", "milliseconds"),
    [
        (retry(0), 0),
        (retry(-5), 0),
        (retry(0, 1), 1),
        (retry(1, 500_000_001), 1501),
        (retry(10**9), 3_600_000),
    ],
)
def test_a_retry_delay_is_told_in_both_units(
    delay: error_details_pb2.RetryInfo, milliseconds: int
) -> None:
    trailers = packed(info("RATE_LIMITED"), detail(429), delay)
    failure = of_call(grpc.StatusCode.INTERNAL, "", exchange_id=ID, trailers=trailers)
    told = dict(failure.headers())
    assert told[b"retry-after-ms"] == str(milliseconds).encode()
    assert told[b"retry-after"] == str(max(1, math.ceil(milliseconds / 1000))).encode()
    assert told[b"x-should-retry"] == b"true"


def test_the_failures_own_delay_counts_before_metadata() -> None:
    told_twice = ("retry-after", "99")
    trailers: Metadata = (*packed(info("RATE_LIMITED"), detail(429), retry(7)), told_twice)
    failure = of_call(
        grpc.StatusCode.INTERNAL,
        "",
        exchange_id=ID,
        metadata=(("x-ratelimit-limit-requests", "5"), ("set-cookie", "a")),
        trailers=trailers,
    )
    told = failure.headers()
    assert len(told) == len(dict(told))
    assert dict(told)[b"retry-after"] == b"7"
    assert dict(told)[b"x-ratelimit-limit-requests"] == b"5"
    assert b"set-cookie" not in dict(told)


@pytest.mark.parametrize(
    ("reason", "closes"),
    [
        ("MALFORMED_HTTP", True),
        ("REQUEST_TIMEOUT", True),
        ("HEADERS_TOO_LARGE", True),
        ("INVALID_JSON", False),
        ("UNKNOWN_URL", False),
        ("OVERLOADED", False),
    ],
)
def test_a_failure_after_which_the_connection_closes_says_so(reason: str, *, closes: bool) -> None:
    told = dict(of_reason(reason).headers())
    assert told.get(b"connection") == (b"close" if closes else None)


def test_401_names_the_scheme_and_405_the_methods() -> None:
    assert (b"www-authenticate", b"Bearer") in of_reason("INVALID_API_KEY").headers()
    assert (b"allow", b"GET") in of_reason("METHOD_NOT_ALLOWED", allow="GET").headers()


def test_a_document_that_is_no_request_is_400_or_422() -> None:
    not_json = error_responses.of_document(DecodeError("no", code="invalid_json"))
    assert (not_json.status, not_json.error.code_text) == (400, "invalid_json")
    wrong = error_responses.of_document(DecodeError("no", code="invalid_type", param="stop"))
    assert (wrong.status, wrong.error.code_text, wrong.error.param) == (422, "invalid_type", "stop")

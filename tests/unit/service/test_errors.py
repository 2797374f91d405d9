import inspect
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from chatcompletion import openai_json
from chatcompletion.reasons import DOMAIN, RULES
from chatcompletion.v1 import error_pb2
from service import errors
from service.errors import Failure, InvalidRequest, Violation
from tests.support.samples import details

CLASSES: dict[str, type[Failure]] = {
    kind.reason: kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Failure) and kind is not Failure
}

# The promises to callers: gRPC code, HTTP status, whether it is retryable, RetryInfo.
PROMISED: dict[str, tuple[str, int, bool, bool]] = {
    "INVALID_API_KEY": ("UNAUTHENTICATED", 401, False, False),
    "INSUFFICIENT_CREDITS": ("FAILED_PRECONDITION", 402, False, False),
    "CREDITS_HELD": ("RESOURCE_EXHAUSTED", 402, True, True),
    "BUDGET_EXCEEDED": ("RESOURCE_EXHAUSTED", 402, False, False),
    "MODEL_NOT_ALLOWED": ("PERMISSION_DENIED", 403, False, False),
    "MODEL_NOT_FOUND": ("NOT_FOUND", 404, False, False),
    "ACCOUNT_NOT_FOUND": ("NOT_FOUND", 404, False, False),
    "API_KEY_NOT_FOUND": ("NOT_FOUND", 404, False, False),
    "SUSPENDED": ("PERMISSION_DENIED", 403, False, False),
    "ALREADY_EXISTS": ("ALREADY_EXISTS", 409, False, False),
    "IDEMPOTENCY_CONFLICT": ("FAILED_PRECONDITION", 409, False, False),
    "ANSWER_NOT_KEPT": ("FAILED_PRECONDITION", 409, False, False),
    "REQUEST_TOO_LARGE": ("INVALID_ARGUMENT", 413, False, False),
    "INVALID_REQUEST": ("INVALID_ARGUMENT", 422, False, False),
    "RATE_LIMITED": ("RESOURCE_EXHAUSTED", 429, True, True),
    "UPSTREAM_RATE_LIMITED": ("RESOURCE_EXHAUSTED", 429, True, True),
    "INTERNAL": ("INTERNAL", 500, False, False),
    "UPSTREAM_UNAVAILABLE": ("UNAVAILABLE", 502, True, False),
    "UPSTREAM_ERROR": ("INTERNAL", 502, False, False),
    "UPSTREAM_TIMEOUT": ("INTERNAL", 502, False, False),
    "UPSTREAM_INVALID_RESPONSE": ("INTERNAL", 502, False, False),
    "UPSTREAM_TRUNCATED": ("INTERNAL", 502, False, False),
    "UPSTREAM_ACCOUNT": ("INTERNAL", 502, False, False),
    "OVERLOADED": ("UNAVAILABLE", 503, True, True),
    "DRAINING": ("UNAVAILABLE", 503, True, True),
    "STORE_UNAVAILABLE": ("UNAVAILABLE", 503, True, True),
    "DEADLINE_EXCEEDED": ("DEADLINE_EXCEEDED", 504, False, False),
    "CANCELLED": ("CANCELLED", 499, False, False),
}

HOSTILE = {
    "ASCII": "a" * 100_000,
    "four bytes a character": "😀" * 100_000,
    "control characters": "\x00\r\n" * 30_000,
    "half of a surrogate pair": "\ud83d" * 100_000,
}


def told(failure: Failure, kind: type[Any]) -> Any:
    return details(errors.status(failure, "req_1")).get(kind)


def test_there_is_one_class_for_each_reason() -> None:
    named = [
        kind.reason
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Failure) and kind is not Failure
    ]

    assert sorted(named) == sorted(RULES)
    assert CLASSES.keys() == PROMISED.keys()


@pytest.mark.parametrize("reason", PROMISED)
def test_a_failure_is_told_as_promised(reason: str) -> None:
    code, http_status, retryable, waits = PROMISED[reason]
    status = errors.status(CLASSES[reason](), "req_1")
    found = details(status)
    info = found[error_details_pb2.ErrorInfo]
    detail = found[error_pb2.ErrorDetail]

    assert status.code is grpc.StatusCode[code]
    hint = " Contact the operator and give request id req_1."
    wanted = CLASSES[reason].default_message + (hint if reason == "UPSTREAM_ACCOUNT" else "")
    assert status.details == detail.error.message == wanted
    assert detail.http_status == http_status
    assert (detail.error.type, detail.error.code_text) == (RULES[reason].type, RULES[reason].code)
    assert not detail.error.HasField("param")
    assert (info.domain, info.reason) == (DOMAIN, reason)
    # Also for clients that do not have the types of google.rpc.
    assert error_pb2.ErrorReason.Name(detail.reason) == f"ERROR_REASON_{reason}"
    assert detail.retryable is retryable
    assert dict(info.metadata) == {
        "retryable": "true" if retryable else "false",
        "request_id": "req_1",
    }
    assert (error_details_pb2.RetryInfo in found) is waits
    assert dict(status.trailing_metadata).keys() == {"grpc-status-details-bin", "x-request-id"}
    assert dict(status.trailing_metadata)["x-request-id"] == "req_1"


@pytest.mark.parametrize("reason", PROMISED)
def test_nothing_is_retryable_after_dispatch(reason: str) -> None:
    status = errors.status(CLASSES[reason](dispatched=True, retry_after=3), "req_1")
    found = details(status)

    assert found[error_details_pb2.ErrorInfo].metadata["retryable"] == "false"
    assert error_details_pb2.RetryInfo not in found
    assert dict(status.trailing_metadata)["grpc-retry-pushback-ms"] == "-1"


@pytest.mark.parametrize(
    ("seconds", "told_seconds"),
    [(0.0015, 0.001), (0.25, 0.25), (1, 1.0), (120.0, 120.0), (None, 1.0), (0, 1.0)],
)
def test_the_wait_is_told(seconds: float | None, told_seconds: float) -> None:
    info = told(errors.UpstreamRateLimited(retry_after=seconds), error_details_pb2.RetryInfo)

    assert info.retry_delay.ToMilliseconds() == told_seconds * 1000


def test_a_wait_is_told_of_retryable_failures_only() -> None:
    assert told(errors.UpstreamUnavailable(retry_after=2), error_details_pb2.RetryInfo)
    assert told(errors.UpstreamError(retry_after=2), error_details_pb2.RetryInfo) is None


def test_a_failure_says_what_it_is_told_to_say() -> None:
    failure = InvalidRequest("Too long.", param="messages[0].content", code="c", kind="k")
    error = told(failure, error_pb2.ErrorDetail).error

    assert openai_json.encode_error(error) == (
        b'{"error":{"message":"Too long.","type":"k","param":"messages[0].content","code":"c"}}'
    )


def test_a_code_may_be_a_number() -> None:
    error = errors.error_object(InvalidRequest(code=400))

    assert error.WhichOneof("code") == "code_number"
    assert error.code_number == 400


def test_the_first_violation_is_the_message_and_all_are_in_the_details() -> None:
    violations = [
        Violation(param="n", message="Must be 1 to 128.", code="number_out_of_range"),
        Violation(param="model", message="Missing.", field="params.model"),
    ]
    failure = InvalidRequest.of(violations)
    found = details(errors.status(failure, "req_1"))
    error = found[error_pb2.ErrorDetail].error

    assert failure.violations == tuple(violations)
    assert (error.message, error.param, error.code_text) == (
        "Must be 1 to 128. The request has 1 more error.",
        "n",
        "number_out_of_range",
    )
    assert [
        (violation.field, violation.description)
        for violation in found[error_details_pb2.BadRequest].field_violations
    ] == [("n", "Must be 1 to 128."), ("params.model", "Missing.")]


def test_of_many_violations_the_first_eight_are_listed() -> None:
    failure = InvalidRequest.of(
        [Violation(param=f"messages[{index}].role", message="Missing.") for index in range(500)]
    )
    listed = told(failure, error_details_pb2.BadRequest).field_violations

    assert [violation.field for violation in listed] == [f"messages[{i}].role" for i in range(8)]
    assert failure.message == "Missing. The request has at least 499 more errors."


def test_an_invalid_request_without_violations_has_no_bad_request() -> None:
    assert told(InvalidRequest("The upstream says so."), error_details_pb2.BadRequest) is None


def test_a_failure_can_have_a_status_and_members_of_its_own() -> None:
    failure = InvalidRequest("No.", code=7)
    failure.http_status = 400
    failure.members = {"n_ctx": "8192", "inner": '{"a":1}'}
    detail = details(errors.status(failure, "req_1"))[error_pb2.ErrorDetail]

    assert detail.http_status == 400
    assert dict(detail.error.extra_json) == failure.members
    assert detail.error.code_number == 7


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("reason", PROMISED)
def test_a_status_is_smaller_than_4_kib_whatever_it_says(reason: str, text: str) -> None:
    failure = CLASSES[reason](text, param=text, code=text, kind=text, retry_after=1)
    status = errors.status(failure, "r" * 128)
    packed = dict(status.trailing_metadata)[errors.STATUS_DETAILS]

    assert len(packed) < 4096
    assert len(status.details.encode()) <= 1024
    assert error_pb2.ErrorDetail in details(status)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_status_with_violations_is_smaller_than_4_kib_too(text: str) -> None:
    failure = InvalidRequest.of([Violation(param=text, message=text, code=text)] * 50)
    status = errors.status(failure, "r" * 128)

    assert len(dict(status.trailing_metadata)[errors.STATUS_DETAILS]) < 4096
    assert error_pb2.ErrorDetail in details(status)


def test_a_text_is_cut_between_characters() -> None:
    failure = errors.Internal("a" * 1023 + "é")

    assert failure.message == "a" * 1023


def test_every_answer_to_a_wrong_key_is_the_same() -> None:
    assert errors.status(errors.InvalidApiKey(), "r") == errors.status(errors.InvalidApiKey(), "r")


def test_a_limit_is_named_in_the_details() -> None:
    failure = errors.RateLimited.of("requests per minute", "Rate limit reached: requests.", 2.0)
    (quota,) = failure.details()
    assert quota == error_details_pb2.QuotaFailure(
        violations=[
            error_details_pb2.QuotaFailure.Violation(
                subject="requests per minute", description="Rate limit reached: requests."
            )
        ]
    )
    packed = dict(errors.status(failure, "r").trailing_metadata)[errors.STATUS_DETAILS]
    assert isinstance(packed, bytes)
    kinds = [detail.TypeName() for detail in status_pb2.Status.FromString(packed).details]
    assert "google.rpc.QuotaFailure" in kinds
    assert errors.RateLimited().details() == ()

import grpc
import pytest

from chatcompletion.reasons import DOMAIN, RULES, ReasonRule
from chatcompletion.v1 import error_pb2

# reason: gRPC code, HTTP status, type, code, whether the same request can succeed later
TOLD = {
    "INVALID_API_KEY": (
        *("UNAUTHENTICATED", 401, "invalid_request_error", "invalid_api_key"),
        False,
    ),
    "INSUFFICIENT_CREDITS": (
        *("FAILED_PRECONDITION", 402, "insufficient_quota", "insufficient_credits"),
        False,
    ),
    "CREDITS_HELD": ("RESOURCE_EXHAUSTED", 402, "insufficient_quota", "credits_held", True),
    "BUDGET_EXCEEDED": (
        *("RESOURCE_EXHAUSTED", 402, "insufficient_quota", "budget_exceeded"),
        False,
    ),
    "MODEL_NOT_ALLOWED": (
        *("PERMISSION_DENIED", 403, "invalid_request_error", "model_not_allowed"),
        False,
    ),
    "MODEL_NOT_FOUND": ("NOT_FOUND", 404, "invalid_request_error", "model_not_found", False),
    "ACCOUNT_NOT_FOUND": ("NOT_FOUND", 404, "invalid_request_error", "account_not_found", False),
    "API_KEY_NOT_FOUND": ("NOT_FOUND", 404, "invalid_request_error", "api_key_not_found", False),
    "SUSPENDED": ("PERMISSION_DENIED", 403, "invalid_request_error", "suspended", False),
    "IDEMPOTENCY_CONFLICT": (
        *("FAILED_PRECONDITION", 409, "invalid_request_error", "idempotency_conflict"),
        False,
    ),
    "ANSWER_NOT_KEPT": (
        *("FAILED_PRECONDITION", 409, "invalid_request_error", "answer_not_kept"),
        False,
    ),
    "ALREADY_EXISTS": ("ALREADY_EXISTS", 409, "invalid_request_error", "already_exists", False),
    "REQUEST_TOO_LARGE": (
        *("INVALID_ARGUMENT", 413, "invalid_request_error", "request_too_large"),
        False,
    ),
    "INVALID_REQUEST": ("INVALID_ARGUMENT", 422, "invalid_request_error", "invalid_value", False),
    "RATE_LIMITED": ("RESOURCE_EXHAUSTED", 429, "rate_limit_error", "rate_limit_exceeded", True),
    "UPSTREAM_RATE_LIMITED": (
        *("RESOURCE_EXHAUSTED", 429, "rate_limit_error", "upstream_rate_limited"),
        True,
    ),
    "INTERNAL": ("INTERNAL", 500, "server_error", "internal_error", False),
    "UPSTREAM_UNAVAILABLE": ("UNAVAILABLE", 502, "server_error", "upstream_unavailable", True),
    "UPSTREAM_ERROR": ("INTERNAL", 502, "server_error", "upstream_error", False),
    "UPSTREAM_TIMEOUT": ("INTERNAL", 502, "server_error", "upstream_timeout", False),
    "UPSTREAM_INVALID_RESPONSE": (
        *("INTERNAL", 502, "server_error", "upstream_invalid_response"),
        False,
    ),
    "UPSTREAM_TRUNCATED": ("INTERNAL", 502, "server_error", "upstream_truncated", False),
    "UPSTREAM_ACCOUNT": ("INTERNAL", 502, "server_error", "upstream_account", False),
    "OVERLOADED": ("UNAVAILABLE", 503, "service_unavailable_error", "overloaded", True),
    "DRAINING": ("UNAVAILABLE", 503, "service_unavailable_error", "draining", True),
    "STORE_UNAVAILABLE": (
        *("UNAVAILABLE", 503, "service_unavailable_error", "store_unavailable"),
        True,
    ),
    "DEADLINE_EXCEEDED": ("DEADLINE_EXCEEDED", 504, "server_error", "deadline_exceeded", False),
    "CANCELLED": ("CANCELLED", 499, "invalid_request_error", "cancelled", False),
}


def test_each_reason_is_told_as_promised() -> None:
    assert {
        reason: (rule.grpc_code.name, rule.http_status, rule.type, rule.code, rule.retryable)
        for reason, rule in RULES.items()
    } == TOLD


def test_each_value_of_the_enum_but_the_unspecified_one_is_a_reason() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118  (no mapping)

    assert names - {"UNSPECIFIED"} == set(RULES)
    assert all(rule.reason == reason for reason, rule in RULES.items())


def test_codes_tell_the_reasons_apart() -> None:
    assert len({rule.code for rule in RULES.values()}) == len(RULES)


def test_clients_and_meshes_repeat_a_call_only_where_that_may_help() -> None:
    for rule in RULES.values():
        assert rule.retryable or rule.grpc_code is not grpc.StatusCode.UNAVAILABLE


def test_the_table_does_not_change() -> None:
    with pytest.raises(TypeError):
        RULES["INTERNAL"] = RULES["CANCELLED"]  # type: ignore[index]  # what is tested
    with pytest.raises(AttributeError):
        RULES["INTERNAL"].http_status = 200  # type: ignore[misc]  # what is tested


def test_a_rule_is_a_value() -> None:
    assert RULES["CANCELLED"] == ReasonRule(
        reason="CANCELLED",
        grpc_code=grpc.StatusCode.CANCELLED,
        http_status=499,
        type="invalid_request_error",
        code="cancelled",
        retryable=False,
    )
    assert DOMAIN == "chatcompletion.v1"

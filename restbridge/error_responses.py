"""Failures of requests, as HTTP responses.

    status details with a reason     ->  the service's own HTTP status and error object
    gRPC status without a reason     ->  FOREIGN: grpcio or a proxy failed the call
    detected by the bridge itself    ->  BRIDGE, or a reason of `chatcompletion.reasons`

Every other failure gets one fixed text with the request id. The text of a gRPC status never reaches
the client.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf.message import DecodeError as ProtoDecodeError
from google.rpc import error_details_pb2, status_pb2

from chatcompletion.default_messages import BRIDGE_MESSAGES, DEFAULT_MESSAGES
from chatcompletion.openai_json import DecodeError, encode_error
from chatcompletion.reasons import DOMAIN, RULES
from chatcompletion.v1.error_pb2 import ApiError, ErrorDetail
from restbridge import headers
from restbridge.headers import Metadata

STATUS_DETAILS: Final = "grpc-status-details-bin"
"""The trailing metadata that holds a google.rpc.Status."""

_LONGEST_WAIT_MS: Final = 3_600_000
_LONGEST_WHY: Final = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorResponse:
    """A failure, and the HTTP response for it."""

    reason: str
    """A name from `REASONS`, for logs and metrics."""
    status: int
    """The HTTP status, if no part of the response was sent before the failure."""
    error: ApiError
    retryable: bool | None = None
    """The value of x-should-retry; None omits the header."""
    retry_after_ms: int | None = None
    closes: bool = False
    """Whether the bridge closes the connection after the response."""
    allow: str = ""
    """The methods of the resource, if the method was wrong."""
    metadata: tuple[tuple[bytes, bytes], ...] = ()
    """Headers from the service's metadata, by the allow-list."""
    why: str = ""
    """The cause in gRPC's words, for the log only."""

    def body(self) -> bytes:
        """Return the JSON document `{"error": {...}}`, on one line."""
        return encode_error(self.error)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers for this failure, without those of the body."""
        told = dict(self.metadata)
        if self.retryable is not None:
            told[b"x-should-retry"] = b"true" if self.retryable else b"false"
        if self.retry_after_ms is not None:
            whole = max(1, math.ceil(self.retry_after_ms / 1000))
            told[b"retry-after"] = str(whole).encode("ascii")
            told[b"retry-after-ms"] = str(self.retry_after_ms).encode("ascii")
        if self.allow:
            told[b"allow"] = self.allow.encode("ascii")
        if self.status == 401:
            told[b"www-authenticate"] = b"Bearer"  # RFC 9110, section 11.6.1
        if self.closes:
            told[b"connection"] = b"close"
        return list(told.items())


class RefusedError(Exception):
    """The request ends with this failure."""

    def __init__(self, failure: ErrorResponse) -> None:
        super().__init__(failure.reason)
        self.failure = failure


# ---------------------------------------------------------------------- detected by the bridge


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeRule:
    """The HTTP status and error object of a failure that only the bridge detects."""

    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    closes: bool = False


BRIDGE: Final[Mapping[str, BridgeRule]] = MappingProxyType(
    {
        "INVALID_JSON": BridgeRule(
            status=400, code="invalid_json", message="The body is not valid JSON."
        ),
        "MALFORMED_HTTP": BridgeRule(
            status=400,
            code="malformed_request",
            message="The request is not valid HTTP/1.1.",
            closes=True,
        ),
        "CORS_NOT_ALLOWED": BridgeRule(
            status=400,
            code="cors_not_allowed",
            message="This origin, method or header is not allowed here.",
        ),
        "UNKNOWN_URL": BridgeRule(
            status=404, code="unknown_url", message="There is nothing at this URL."
        ),
        "METHOD_NOT_ALLOWED": BridgeRule(
            status=405,
            code="method_not_allowed",
            message="This URL does not have this method.",
        ),
        "REQUEST_TIMEOUT": BridgeRule(
            status=408,
            code="request_timeout",
            message="The request was not received in time.",
            closes=True,
        ),
        "UNSUPPORTED_MEDIA_TYPE": BridgeRule(
            status=415,
            code="unsupported_media_type",
            message="The content-type must be application/json.",
        ),
        "UNSUPPORTED_CODING": BridgeRule(
            status=415,
            code="unsupported_content_encoding",
            message="The body must not be compressed.",
        ),
        "HEADERS_TOO_LARGE": BridgeRule(
            status=431,
            code="headers_too_large",
            message="The headers are larger than this server accepts.",
            closes=True,
        ),
        "SERVICE_UNAVAILABLE": BridgeRule(
            status=503,
            type="service_unavailable_error",
            code="service_unavailable",
            message="The service cannot be reached at the moment.",
        ),
    }
)
"""Failures that only the bridge detects, by reason."""

REASONS: Final = frozenset({*RULES, *BRIDGE})
"""Every reason of a failure."""

_MESSAGES: Final = MappingProxyType({**DEFAULT_MESSAGES, **BRIDGE_MESSAGES})

_PAUSE_MS: Final = 1000
"""Retry-After in seconds, if a server is busy, unreachable or shutting down."""

_PAUSING: Final = frozenset({"OVERLOADED", "DRAINING", "STORE_UNAVAILABLE", "SERVICE_UNAVAILABLE"})


def of_reason(
    reason: str,
    *,
    message: str | None = None,
    param: str | None = None,
    code: str | None = None,
    allow: str = "",
) -> ErrorResponse:
    """Return the failure for a reason of `BRIDGE` or `chatcompletion.reasons.RULES`.

    Args:
        reason: One of `REASONS`.
        message: A message in place of the reason's default.
        param: The path of the member at fault.
        code: A code in place of the reason's default.
        allow: The methods of the resource, if the method was wrong.
    """
    error = ApiError()
    pause = _PAUSE_MS if reason in _PAUSING else None
    if own := BRIDGE.get(reason):
        error.message, error.type, error.code_text = (
            message or own.message,
            own.type,
            code or own.code,
        )
        failure = ErrorResponse(
            reason=reason,
            status=own.status,
            error=error,
            retryable=True if pause else None,
            retry_after_ms=pause,
            closes=own.closes,
            allow=allow,
        )
    else:
        rule = RULES[reason]
        error.message, error.type = message or _MESSAGES[reason], rule.type
        error.code_text = code or rule.code
        failure = ErrorResponse(
            reason=reason,
            status=rule.http_status,
            error=error,
            retryable=rule.retryable,
            retry_after_ms=pause,
        )
    if param is not None:
        error.param = param
    return failure


LEFT: Final = of_reason("CANCELLED")
"""The failure of an exchange whose client disconnected. Never sent."""


def internal(exchange_id: str) -> ErrorResponse:
    """Return the failure for an unexpected error."""
    text = f"{_MESSAGES['INTERNAL']} Please give the request id {exchange_id} when you report it."
    return of_reason("INTERNAL", message=text)


def of_document(error: DecodeError) -> ErrorResponse:
    """Return the failure for a body that cannot be decoded."""
    reason = "INVALID_JSON" if error.code == "invalid_json" else "INVALID_REQUEST"
    return of_reason(reason, message=error.message, param=error.param, code=error.code)


# ---------------------------------------------------------------------- from the gRPC status

FOREIGN: Final[Mapping[grpc.StatusCode, str]] = MappingProxyType(
    {
        grpc.StatusCode.UNAVAILABLE: "SERVICE_UNAVAILABLE",
        # Not the bridge's own cancellations, which end the exchange earlier. gRPC cancels calls
        # that arrive while a server closes its listener; a proxy cancels the calls of a connection
        # that it closes.
        grpc.StatusCode.CANCELLED: "SERVICE_UNAVAILABLE",
        grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
        grpc.StatusCode.RESOURCE_EXHAUSTED: "OVERLOADED",
    }
)
"""The reason for a status without an ErrorReason. Any other code is a defect: INTERNAL."""

# Only the text distinguishes grpcio's own causes of RESOURCE_EXHAUSTED. None of them is a limit of
# the caller's key.
_EXHAUSTED: Final = (
    ("client: received message larger than max", "INTERNAL"),  # a response beyond our own limit
    ("message larger than max", "REQUEST_TOO_LARGE"),
    ("metadata size exceeds", "HEADERS_TOO_LARGE"),
)


def of_call(
    code: grpc.StatusCode,
    text: str | None,
    *,
    exchange_id: str,
    metadata: Metadata | None = None,
    trailers: Metadata | None = None,
) -> ErrorResponse:
    """Return the failure for a call that ended with an error status.

    Initial metadata prove that the service accepted the call, so the upstream may have started to
    generate. Such a call is not retryable unless the service itself reports that it is.

    Args:
        code: The status code.
        text: The status's text. Used only to distinguish grpcio's own failures.
        exchange_id: The request id, for failures that are defects.
        metadata: The initial metadata.
        trailers: The trailing metadata.
    """
    failure = _told(trailers, exchange_id)
    if failure is None:
        failure = replace(_foreign(code, text, exchange_id), why=(text or "")[:_LONGEST_WHY])
        if failure.retryable and any(True for _ in metadata or ()):
            failure = replace(failure, retryable=False, retry_after_ms=None)
    return replace(failure, metadata=tuple(headers.answer(metadata, trailers)))


def _foreign(code: grpc.StatusCode, text: str | None, exchange_id: str) -> ErrorResponse:
    reason = FOREIGN.get(code, "INTERNAL")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        lowered = (text or "").lower()
        reason = next((mapped for part, mapped in _EXHAUSTED if part in lowered), reason)
    return internal(exchange_id) if reason == "INTERNAL" else of_reason(reason)


def _told(trailers: Metadata | None, exchange_id: str) -> ErrorResponse | None:
    """Return the failure in the service's status details, or None if there is none."""
    packed = next((value for key, value in trailers or () if key == STATUS_DETAILS), None)
    info = error_details_pb2.ErrorInfo()
    detail = ErrorDetail()
    retry = error_details_pb2.RetryInfo()
    try:
        status = status_pb2.Status.FromString(packed if isinstance(packed, bytes) else b"")
        for item in status.details:
            # Unpack returns False if the item has another type.
            _ = item.Unpack(info) or item.Unpack(detail) or item.Unpack(retry)
    except ProtoDecodeError:
        return None
    rule = RULES.get(info.reason) if info.domain == DOMAIN else None
    if rule is None and not detail.HasField("error"):
        return None
    if rule is not None and not detail.HasField("error"):
        told = internal(exchange_id) if rule.reason == "INTERNAL" else of_reason(rule.reason)
        error = told.error
    else:
        error = detail.error
    http_status = detail.http_status if 400 <= detail.http_status <= 599 else None
    retryable = {"true": True, "false": False}.get(info.metadata.get("retryable", ""))
    return ErrorResponse(
        reason=rule.reason if rule else "INTERNAL",
        status=http_status or (rule.http_status if rule else 500),
        error=error,
        retryable=retryable if retryable is not None or rule is None else rule.retryable,
        retry_after_ms=_wait(retry),
    )


def _wait(retry: error_details_pb2.RetryInfo) -> int | None:
    if not retry.HasField("retry_delay"):
        return None
    milliseconds: int = retry.retry_delay.seconds * 1000 + math.ceil(retry.retry_delay.nanos / 1e6)
    return min(max(milliseconds, 0), _LONGEST_WAIT_MS)

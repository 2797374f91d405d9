"""One exception per reason of the contract, and its form on the wire.

    raise UpstreamTimeout()  -> interceptors -> status(failure, request_id) -> code, text, trailers

`v1/error.proto` has the gRPC code, the HTTP status, `type` and `code` of each reason, and
`chatcompletion.default_messages` has its default message. A test checks that each reason has one
class here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from chatcompletion.default_messages import DEFAULT_MESSAGES
from chatcompletion.reasons import DOMAIN, RULES, ReasonRule
from chatcompletion.v1 import error_pb2
from process import request_id as request_ids
from service.upstream_report import Cause, UpstreamReport

STATUS_DETAILS: Final = "grpc-status-details-bin"
"""The trailer that holds the serialized `google.rpc.Status`."""

_LONGEST_TEXT: Final = 1024
_LONGEST_PATH: Final = 128
_LONGEST_DESCRIPTION: Final = 192
_LARGEST_STATUS: Final = 4096
"""Maximum lengths in bytes. Near 8 KiB of trailers, grpcio replaces the status with its own."""

MOST_VIOLATIONS: Final = 8
"""Maximum number of reported violations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """A member of a request that violates the contract."""

    param: str
    """The path of the member, such as `messages[0].role`."""
    message: str
    """The message for people: the parameter, what was expected, what was received."""
    code: str = "invalid_value"
    """The `code` of the OpenAI error object."""
    field: str = ""
    """The protobuf path of the field; "" if it is `param`."""
    setting: str = ""
    """The setting with which an operator can accept it, for the log only; "" if there is none."""


class Failure(Exception):  # noqa: N818  (its subclasses are named after the reasons)
    """A call fails with a reason of the contract."""

    reason: ClassVar[str]
    default_message: ClassVar[str]
    """From `DEFAULT_MESSAGES`."""
    default_cause: ClassVar[Cause | None] = None
    """The cause at the upstream if there is no report; None for failures of other origin."""
    default_retry_after: ClassVar[float | None] = None
    """Default seconds before a retry of a retryable failure; None if the failure reports none."""

    http_status: int | None = None
    """The HTTP status in place of the reason's; None for the reason's."""
    members: Mapping[str, str] = MappingProxyType({})
    """Further members of the error object, as JSON texts."""
    metadata: Mapping[str, str] = MappingProxyType({})
    """Further metadata of `google.rpc.ErrorInfo`."""
    asks_operator = False
    """Whether only an operator can help, so that the message has the request id."""
    refuses_key = False
    """Whether the upstream refused the service's key with an error status, and did no work."""
    refuses_options = False
    """Whether the upstream refused `stream_options`."""
    lost_idle = False
    """Whether the request went out on an idle connection that the upstream closed at that time."""
    report: UpstreamReport | None = None
    """What happened at the upstream, for the log and the metrics only."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.default_message = DEFAULT_MESSAGES[cls.reason]

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        code: str | int | None = None,
        kind: str | None = None,
        retry_after: float | None = None,
        dispatched: bool = False,
    ) -> None:
        """Describe the failure.

        Args:
            message: The message for people; None for the reason's default.
            param: The path of the request member at fault.
            code: The `code` of the error object; None for the reason's default.
            kind: The `type` of the error object; None for the reason's.
            retry_after: Seconds after which a retry can succeed; None for the class's default.
            dispatched: Whether the upstream may have started to generate, so that a retry could
                pay twice.
        """
        super().__init__(message or self.default_message)
        self.message = _cut(message or self.default_message, _LONGEST_TEXT)
        self.param = param
        self.code = code
        self.kind = kind
        self.retry_after = retry_after
        self.dispatched = dispatched

    def because(self, cause: Cause) -> Self:
        """Set the cause at the upstream, for the log and the metrics, and return the failure."""
        self.report = UpstreamReport(cause=cause)
        return self

    @property
    def rule(self) -> ReasonRule:
        """The row of the error table."""
        return RULES[self.reason]

    @property
    def retryable(self) -> bool:
        """Whether the caller can send the same request again."""
        return self.rule.retryable and not self.dispatched

    def details(self) -> Sequence[Message]:
        """Return the standard details that this kind of failure adds."""
        return ()


KEY_ENDED: Final = "This API key was revoked or has expired. Use another key."
"""The message for a key that was valid at the last lookup."""


class InvalidApiKey(Failure):
    """The API key is missing, unknown, revoked or expired."""

    reason = "INVALID_API_KEY"


class Suspended(Failure):
    """The account or the API key is suspended."""

    reason = "SUSPENDED"


class InsufficientCredits(Failure):
    """The balance of the account cannot cover the request."""

    reason = "INSUFFICIENT_CREDITS"


class CreditsHeld(Failure):
    """The balance, or a budget, could cover the request, but calls in flight hold a part of it."""

    reason = "CREDITS_HELD"
    default_retry_after = 1.0


class BudgetExceeded(Failure):
    """A budget of the API key or of an account above it is spent."""

    reason = "BUDGET_EXCEEDED"


class ModelNotAllowed(Failure):
    """The API key is not allowed to use the model."""

    reason = "MODEL_NOT_ALLOWED"


class ModelNotFound(Failure):
    """No model has the requested name."""

    reason = "MODEL_NOT_FOUND"


class RequestTooLarge(Failure):
    """The request exceeds the maximum size."""

    reason = "REQUEST_TOO_LARGE"


class InvalidRequest(Failure):
    """The request violates the contract, or the upstream refused it as invalid."""

    reason = "INVALID_REQUEST"

    violations: tuple[Violation, ...] = ()

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> "InvalidRequest":
        """Return the failure for at least one violation.

        The message is that of the first, and the number of others.
        """
        first, *others = violations
        message = first.message
        if others:
            many = len(violations) >= MOST_VIOLATIONS
            errors = "1 more error" if len(others) == 1 else f"{len(others)} more errors"
            message += f" The request has {'at least ' if many else ''}{errors}."
        failure = cls(message, param=first.param, code=first.code)
        failure.violations = tuple(violations)
        return failure

    def details(self) -> Sequence[Message]:
        """Return a BadRequest with the violations that fit into the trailer."""
        listed = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_cut(violation.field or violation.param, _LONGEST_PATH),
                description=_cut(violation.message, _LONGEST_DESCRIPTION),
            )
            for violation in self.violations[:MOST_VIOLATIONS]
        ]
        return (error_details_pb2.BadRequest(field_violations=listed),) if listed else ()


class RateLimited(Failure):
    """The API key reached its limit of requests, tokens or concurrent calls."""

    reason = "RATE_LIMITED"
    default_retry_after = 1.0

    subject = ""
    """The limit that was reached, such as "requests per minute"."""
    fits_later = True
    """Whether waiting can help. It cannot if the request exceeds the whole limit."""

    @classmethod
    def of(cls, subject: str, message: str, retry_after: float | None) -> "RateLimited":
        """Return the failure for a limit.

        Args:
            subject: The limit, such as "requests per minute".
            message: The message for people.
            retry_after: Seconds after which a retry can succeed; None if waiting cannot help.
        """
        failure = cls(message, retry_after=retry_after)
        failure.subject = subject
        failure.fits_later = retry_after is not None
        return failure

    @property
    def retryable(self) -> bool:
        """Whether the caller can send the same request again."""
        return self.fits_later and super().retryable

    def details(self) -> Sequence[Message]:
        """Return a QuotaFailure that names the limit."""
        if not self.subject:
            return ()
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=self.subject, description=self.message
        )
        return (error_details_pb2.QuotaFailure(violations=[violation]),)


class UpstreamRateLimited(Failure):
    """The upstream limits the requests of this service."""

    reason = "UPSTREAM_RATE_LIMITED"
    default_cause = "rate_limit"
    default_retry_after = 1.0


class Internal(Failure):
    """The service failed. The message never contains the text of the cause."""

    reason = "INTERNAL"


class UpstreamUnavailable(Failure):
    """The upstream could not be reached, or it was too busy to do any work."""

    reason = "UPSTREAM_UNAVAILABLE"
    default_cause = "refused"


class UpstreamError(Failure):
    """The upstream failed after the request was sent to it."""

    reason = "UPSTREAM_ERROR"
    default_cause = "other"


class UpstreamTimeout(Failure):
    """The upstream did not respond, or stopped sending, for longer than allowed."""

    reason = "UPSTREAM_TIMEOUT"
    default_cause = "timeout"


class UpstreamInvalidResponse(Failure):
    """The response of the upstream is not a chat completion."""

    reason = "UPSTREAM_INVALID_RESPONSE"
    default_cause = "not_json"


class UpstreamTruncated(Failure):
    """The response of the upstream ended before it was complete."""

    reason = "UPSTREAM_TRUNCATED"
    default_cause = "truncated"


class UpstreamAccount(Failure):
    """The upstream refused this service's own key or account."""

    reason = "UPSTREAM_ACCOUNT"
    default_cause = "account"
    asks_operator = True


class Overloaded(Failure):
    """The service reached its maximum of calls in flight."""

    reason = "OVERLOADED"
    default_retry_after = 1.0


class Draining(Failure):
    """The service is shutting down."""

    reason = "DRAINING"
    default_retry_after = 1.0


class StoreUnavailable(Failure):
    """The store cannot be reached."""

    reason = "STORE_UNAVAILABLE"
    default_retry_after = 1.0


class DeadlineExceeded(Failure):
    """The caller's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class Cancelled(Failure):
    """The caller cancelled the call. Only for logs and metrics: no caller receives it."""

    reason = "CANCELLED"


class AccountNotFound(Failure):
    """No account has the requested name."""

    reason = "ACCOUNT_NOT_FOUND"


class ApiKeyNotFound(Failure):
    """The account has no API key with the requested name."""

    reason = "API_KEY_NOT_FOUND"


class AlreadyExists(Failure):
    """The name or the idempotency id is already used."""

    reason = "ALREADY_EXISTS"


class IdempotencyConflict(Failure):
    """The idempotency key was used for another request."""

    reason = "IDEMPOTENCY_CONFLICT"


class AnswerNotKept(Failure):
    """A call with the idempotency key was charged, and its answer is not available."""

    reason = "ANSWER_NOT_KEPT"


# ------------------------------------------------------------------------------ on the wire


class Status(NamedTuple):
    """The arguments of `ServicerContext.abort`."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def error_object(failure: Failure) -> error_pb2.ApiError:
    """Return the OpenAI error object of a failure."""
    rule = failure.rule
    error = error_pb2.ApiError(message=failure.message, type=rule.type, extra_json=failure.members)
    if failure.kind:
        error.type = _cut(failure.kind, _LONGEST_PATH)
    if failure.param is not None:
        error.param = _cut(failure.param, _LONGEST_PATH)
    if isinstance(failure.code, int):
        error.code_number = failure.code
    else:
        error.code_text = _cut(failure.code or rule.code, _LONGEST_PATH)
    return error


def status(failure: Failure, request_id: str) -> Status:
    """Return the gRPC status of a failure, smaller than 4 KiB."""
    rule = failure.rule
    error = error_object(failure)
    if failure.asks_operator:
        hint = f" Contact the operator and give request id {request_id}."
        error.message = _cut(error.message, _LONGEST_TEXT - len(hint)) + hint
    info = error_details_pb2.ErrorInfo(
        reason=rule.reason,
        domain=DOMAIN,
        metadata={
            "retryable": "true" if failure.retryable else "false",
            "request_id": request_id,
            **failure.metadata,
        },
    )
    detail = error_pb2.ErrorDetail(
        http_status=failure.http_status or rule.http_status,
        error=error,
        reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{rule.reason}"),
        retryable=failure.retryable,
    )
    needed: list[Message] = [info, detail]
    wait = failure.retry_after or failure.default_retry_after
    if wait is not None and failure.retryable:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(wait * 1000))
        needed.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = _pack(rule, error.message, [*needed, *failure.details()])
    if packed.ByteSize() > _LARGEST_STATUS:
        packed = _pack(rule, error.message, needed)
    trailers: list[tuple[str, str | bytes]] = [
        (STATUS_DETAILS, packed.SerializeToString()),
        (request_ids.HEADER, request_id),
    ]
    if failure.dispatched:
        trailers.append(("grpc-retry-pushback-ms", "-1"))
    return Status(rule.grpc_code, error.message, tuple(trailers))


def _pack(rule: ReasonRule, message: str, details: Sequence[Message]) -> status_pb2.Status:
    packed = status_pb2.Status(code=rule.grpc_code.value[0], message=message)
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.details.append(wrapped)
    return packed


def _cut(text: str, most: int) -> str:
    """Return the longest beginning of a text that has at most `most` bytes."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")

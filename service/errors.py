"""One exception per reason of the contract, and its form on the wire.

    raise UpstreamTimeout()  ─► interceptors ─► status(failure, request_id) ─► code, text, trailers

The gRPC code, the HTTP status, `type` and `code` of a reason stand in `v1/error.proto`, its default
text in `chatcompletion.default_messages`. A test walks the reasons and finds one class for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from chatcompletion.default_messages import DEFAULT_MESSAGES
from chatcompletion.reasons import DOMAIN, RULES, ReasonRule
from chatcompletion.v1 import error_pb2
from process import request_id as request_ids

STATUS_DETAILS: Final = "grpc-status-details-bin"
"""The trailer that holds the serialized `google.rpc.Status`."""

_LONGEST_TEXT: Final = 1024
_LONGEST_PATH: Final = 128
_LARGEST_STATUS: Final = 4096
"""Lengths in bytes; near 8 KiB of trailers grpcio replaces the status by one of its own."""

MOST_VIOLATIONS: Final = 8
"""How many violations are told; there is no use in looking for more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One member of a request that breaks the contract."""

    param: str
    """Its path, such as `messages[0].role`."""
    message: str
    """What is wrong with it, for people; never quotes the value."""
    code: str = "invalid_value"
    """For machines: `code` of the OpenAI error object."""
    setting: str = ""
    """The setting with which an operator allows it, for the log alone; "" if there is none."""


class Failure(Exception):  # noqa: N818  (its subclasses are named after the reasons)
    """A call fails for a reason of the contract."""

    reason: ClassVar[str]
    default_message: ClassVar[str]
    """From `DEFAULT_MESSAGES`."""
    default_retry_after: ClassVar[float | None] = None
    """Seconds a retryable failure tells where nothing better is known; None tells none."""

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
            message: The text for people; the class has a default.
            param: The path of the request member at fault.
            code: `code` of the error object, where it is more specific than the reason's.
            kind: `type` of the error object, where the upstream gave one.
            retry_after: After how many seconds the call may succeed.
            dispatched: The upstream may have worked for this call, so that a retry pays twice.
        """
        super().__init__(message or self.default_message)
        self.message = _cut(message or self.default_message, _LONGEST_TEXT)
        self.param = param
        self.code = code
        self.kind = kind
        self.retry_after = retry_after
        self.dispatched = dispatched

    @property
    def rule(self) -> ReasonRule:
        """How the reason is told."""
        return RULES[self.reason]

    @property
    def retryable(self) -> bool:
        """Whether the caller may send the same request again."""
        return self.rule.retryable and not self.dispatched

    def details(self) -> Sequence[Message]:
        """Return the standard details that this kind of failure adds."""
        return ()


class InvalidApiKey(Failure):
    """See the reason in error.proto; one text for every cause."""

    reason = "INVALID_API_KEY"


class InsufficientCredits(Failure):
    """See the reason in error.proto."""

    reason = "INSUFFICIENT_CREDITS"


class CreditsHeld(Failure):
    """See the reason in error.proto."""

    reason = "CREDITS_HELD"
    default_retry_after = 1.0


class ModelNotAllowed(Failure):
    """See the reason in error.proto."""

    reason = "MODEL_NOT_ALLOWED"


class ModelNotFound(Failure):
    """See the reason in error.proto."""

    reason = "MODEL_NOT_FOUND"


class RequestTooLarge(Failure):
    """See the reason in error.proto."""

    reason = "REQUEST_TOO_LARGE"


class InvalidRequest(Failure):
    """See the reason in error.proto."""

    reason = "INVALID_REQUEST"

    violations: tuple[Violation, ...] = ()

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> "InvalidRequest":
        """Make the failure of at least one violation; the first is the message."""
        first = violations[0]
        failure = cls(first.message, param=first.param, code=first.code)
        failure.violations = tuple(violations)
        return failure

    def details(self) -> Sequence[Message]:
        """Return a BadRequest with every violation, as far as the trailer allows."""
        listed = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_cut(violation.param, _LONGEST_PATH),
                description=_cut(violation.message, _LONGEST_PATH),
            )
            for violation in self.violations[:MOST_VIOLATIONS]
        ]
        return (error_details_pb2.BadRequest(field_violations=listed),) if listed else ()


class RateLimited(Failure):
    """See the reason in error.proto."""

    reason = "RATE_LIMITED"
    default_retry_after = 1.0

    subject = ""
    """The limit that was reached, such as "requests per minute"."""
    fits_later = True
    """Whether any wait helps; a request may be larger than the whole limit."""

    @classmethod
    def of(cls, subject: str, message: str, retry_after: float | None) -> "RateLimited":
        """Make the failure of a limit.

        Args:
            subject: The limit.
            message: The text for people.
            retry_after: After how many seconds the call may succeed; None where no wait helps.
        """
        failure = cls(message, retry_after=retry_after)
        failure.subject = subject
        failure.fits_later = retry_after is not None
        return failure

    @property
    def retryable(self) -> bool:
        """Whether the caller may send the same request again."""
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
    """See the reason in error.proto."""

    reason = "UPSTREAM_RATE_LIMITED"
    default_retry_after = 1.0


class Internal(Failure):
    """See the reason in error.proto. The text of the cause is never part of it."""

    reason = "INTERNAL"


class UpstreamUnavailable(Failure):
    """See the reason in error.proto."""

    reason = "UPSTREAM_UNAVAILABLE"


class UpstreamError(Failure):
    """See the reason in error.proto."""

    reason = "UPSTREAM_ERROR"


class UpstreamTimeout(Failure):
    """See the reason in error.proto."""

    reason = "UPSTREAM_TIMEOUT"


class UpstreamInvalidResponse(Failure):
    """See the reason in error.proto."""

    reason = "UPSTREAM_INVALID_RESPONSE"


class UpstreamTruncated(Failure):
    """See the reason in error.proto."""

    reason = "UPSTREAM_TRUNCATED"


class UpstreamAccount(Failure):
    """See the reason in error.proto."""

    reason = "UPSTREAM_ACCOUNT"

    upstream = ""
    """The upstream's name in the configuration; this and what follows is for the log only."""
    status = 0
    """The HTTP status of its answer."""
    names: tuple[str, ...] = ()
    """The codes, types and reasons in its answer, without secrets."""

    @classmethod
    def of(cls, *, upstream: str, status: int, names: tuple[str, ...]) -> "UpstreamAccount":
        """Make the failure of an answer; the upstream was reached."""
        failure = cls(dispatched=True)
        failure.upstream = upstream
        failure.status = status
        failure.names = names
        return failure


class Overloaded(Failure):
    """See the reason in error.proto."""

    reason = "OVERLOADED"
    default_retry_after = 1.0


class Draining(Failure):
    """See the reason in error.proto."""

    reason = "DRAINING"
    default_retry_after = 1.0


class StoreUnavailable(Failure):
    """See the reason in error.proto."""

    reason = "STORE_UNAVAILABLE"
    default_retry_after = 1.0


class DeadlineExceeded(Failure):
    """See the reason in error.proto."""

    reason = "DEADLINE_EXCEEDED"


class Cancelled(Failure):
    """See the reason in error.proto. Written to logs and metrics; nobody is left to be told."""

    reason = "CANCELLED"


class AccountNotFound(Failure):
    """See the reason in error.proto."""

    reason = "ACCOUNT_NOT_FOUND"


class ApiKeyNotFound(Failure):
    """See the reason in error.proto."""

    reason = "API_KEY_NOT_FOUND"


class AlreadyExists(Failure):
    """See the reason in error.proto."""

    reason = "ALREADY_EXISTS"


# ------------------------------------------------------------------------------ on the wire


class Status(NamedTuple):
    """What `ServicerContext.abort` takes."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def error_object(failure: Failure) -> error_pb2.ApiError:
    """Return the OpenAI error object of a failure."""
    rule = failure.rule
    error = error_pb2.ApiError(message=failure.message, type=rule.type)
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
    info = error_details_pb2.ErrorInfo(
        reason=rule.reason,
        domain=DOMAIN,
        metadata={
            "retryable": "true" if failure.retryable else "false",
            "request_id": request_id,
        },
    )
    detail = error_pb2.ErrorDetail(
        http_status=rule.http_status,
        error=error_object(failure),
        reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{rule.reason}"),
        retryable=failure.retryable,
    )
    needed: list[Message] = [info, detail]
    wait = failure.retry_after or failure.default_retry_after
    if wait is not None and failure.retryable:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(wait * 1000))
        needed.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = _pack(failure, [*needed, *failure.details()])
    if packed.ByteSize() > _LARGEST_STATUS:
        packed = _pack(failure, needed)
    trailers: list[tuple[str, str | bytes]] = [
        (STATUS_DETAILS, packed.SerializeToString()),
        (request_ids.HEADER, request_id),
    ]
    if failure.dispatched:
        trailers.append(("grpc-retry-pushback-ms", "-1"))
    return Status(rule.grpc_code, failure.message, tuple(trailers))


def _pack(failure: Failure, details: Sequence[Message]) -> status_pb2.Status:
    packed = status_pb2.Status(code=failure.rule.grpc_code.value[0], message=failure.message)
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.details.append(wrapped)
    return packed


def _cut(text: str, most: int) -> str:
    """Return the beginning of a text, as far as it takes at most so many bytes."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")

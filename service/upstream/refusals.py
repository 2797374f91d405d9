"""Converts an upstream's refusal to a failure of the contract, by its HTTP status.

    any              UPSTREAM_ACCOUNT, if `account_faults` recognizes an account fault
    400, 409, 422    INVALID_REQUEST, with the upstream's message, type, param and code
    404              MODEL_NOT_FOUND, with the same
    413              REQUEST_TOO_LARGE
    403              INVALID_REQUEST, if the caller's input was flagged; otherwise:
    401, 402, 403    UPSTREAM_ACCOUNT. 412 too: Fireworks and Portkey send it for a spent budget,
                     and the service sends no preconditions
    429              UPSTREAM_RATE_LIMITED, with the wait
    408              UPSTREAM_TIMEOUT
    other 4xx, 5xx   UPSTREAM_ERROR; a 503 with the wait for the service's own retry
    1xx, 2xx, 3xx    UPSTREAM_INVALID_RESPONSE; redirects are never followed

Only 400, 404, 409 and 422 forward the upstream's text. Addresses, hosts, keys, organizations and
the upstream's name of the model are removed from it.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from chatcompletion.v1 import error_pb2
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion
from service import errors
from service.models import Model
from service.upstream import account_faults
from service.upstream.error_bodies import ErrorBody

LONGEST_RETRY_AFTER: Final = 120.0
"""Maximum wait in seconds. OpenAI's SDKs do not wait longer."""

_SHORTEST_RETRY_AFTER: Final = 0.001


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the wait in the response headers, in seconds up to 120, or None.

    `retry-after-ms` wins over `retry-after`, which is a number of seconds or an HTTP date (RFC
    9110, section 10.2.3).

    Args:
        headers: The headers by lower-case name.
        now: The wall clock, for dates.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        seconds = _seconds(value, now)
        if seconds is not None and math.isfinite(seconds) and seconds >= 0:
            return min(max(seconds * unit, _SHORTEST_RETRY_AFTER), LONGEST_RETRY_AFTER)
    return None


def _seconds(value: str, now: datetime) -> float | None:
    try:
        return float(value)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max((date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds(), 0.0)


def failure(
    status: int, body: ErrorBody | None, wait: float | None, model: Model
) -> errors.Failure:
    """Return the failure for an upstream's refusal.

    Args:
        status: The HTTP status, or the code in an error event.
        body: The error body, or None if it is empty.
        wait: The result of `retry_after`.
        model: The requested model.
    """
    body = body or _SAYS_NOTHING
    if status == 403 and account_faults.is_flagged(body):
        return errors.InvalidRequest(_FLAGGED, code="content_filter", dispatched=True)
    if status in _ACCOUNT or account_faults.is_account_fault(status, body):
        return errors.UpstreamAccount.of(
            upstream=model.upstream.name, status=status, names=_loggable(body.names, model)
        )
    make = _BY_STATUS.get(status)
    if make is None:
        make = _upstream_error if status >= 400 else _invalid_response
    return make(body.error or error_pb2.ApiError(), wait, model)


def failure_in_success(body: ErrorBody | None, model: Model) -> errors.Failure | None:
    """Return the failure in a body or an event with the status 200, or None.

    Args:
        body: The error body, or None if it is empty.
        model: The requested model.
    """
    if body is None:
        return None
    status = status_of(body.error) if body.error is not None else 500
    found = failure(status, body, None, model)
    if isinstance(found, errors.UpstreamAccount):
        found.status = 200
    elif body.error is None:
        return None
    return found


def flagged_prompt(completion: ChatCompletion) -> errors.Failure | None:
    """Return the failure of a prompt that the upstream's filter stopped, if that is what it says.

    Azure then answers without choices, and with what its filter found under the status 200.
    """
    if _PROMPT_FILTERS.isdisjoint(completion.extra_json):
        return None
    return errors.InvalidRequest(_FLAGGED, code="content_filter", dispatched=True)


def bare_account_fault(body: ErrorBody | None, model: Model) -> errors.Failure | None:
    """Return the account fault of a chunk without choices and without the member `error`, or None.

    Such a chunk is searched for no other failure, because vendors add members to valid chunks.
    """
    if body is None or not account_faults.is_account_fault(500, body):
        return None
    return failure_in_success(body, model)


_Make = Callable[[error_pb2.ApiError, float | None, Model], errors.Failure]


def _callers_mistake(kind: type[errors.Failure]) -> _Make:
    def make(error: error_pb2.ApiError, _: float | None, model: Model) -> errors.Failure:
        code: str | int | None = None
        if error.HasField("code_number"):
            code = error.code_number
        elif error.code_text:
            code = scrub(error.code_text, model)
        return kind(
            scrub(error.message, model) or None,
            param=scrub(error.param, model) or None,
            kind=scrub(error.type, model) or None,
            code=code,
            dispatched=True,
        )

    return make


def _plain(kind: type[errors.Failure]) -> _Make:
    def make(_: error_pb2.ApiError, __: float | None, ___: Model) -> errors.Failure:
        return kind(dispatched=True)

    return make


def _rate_limited(_: error_pb2.ApiError, wait: float | None, __: Model) -> errors.Failure:
    # The upstream refused before it generated anything, so a retry does not pay twice.
    return errors.UpstreamRateLimited(retry_after=wait)


def _unavailable(_: error_pb2.ApiError, wait: float | None, __: Model) -> errors.Failure:
    # The wait is for the service's own retry. For the caller, the failure is not retryable.
    return errors.UpstreamError(retry_after=wait, dispatched=True)


_FLAGGED: Final = "The model provider flagged the input."
_PROMPT_FILTERS: Final = frozenset({"prompt_filter_results", "prompt_annotations"})
_SAYS_NOTHING: Final = ErrorBody()
_upstream_error: Final = _plain(errors.UpstreamError)
_invalid_response: Final = _plain(errors.UpstreamInvalidResponse)

_ACCOUNT: Final = frozenset({401, 402, 403, 412})
_BY_STATUS: Final[Mapping[int, _Make]] = {
    400: _callers_mistake(errors.InvalidRequest),
    404: _callers_mistake(errors.ModelNotFound),
    408: _plain(errors.UpstreamTimeout),
    409: _callers_mistake(errors.InvalidRequest),
    413: _plain(errors.RequestTooLarge),
    422: _callers_mistake(errors.InvalidRequest),
    429: _rate_limited,
    503: _unavailable,
}


def status_of(error: error_pb2.ApiError) -> int:
    """Return the HTTP status in the code of an error object, or 500 if there is none."""
    told = error.code_number if error.HasField("code_number") else _number(error.code_text)
    return told if 400 <= told <= 599 else 500


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else 0


# Each pattern takes linear time, because the upstream chooses the text.
_SECRETS: Final = (
    re.compile(r"[a-z][a-z0-9+.-]{0,30}://\S+", re.IGNORECASE),
    re.compile(r"\b(?:org|proj|acct|user)[-_][A-Za-z0-9_-]{6,}"),
    re.compile(r"\b(?:sk|pk|key|rk)-[A-Za-z0-9_*.-]{4,}"),
    re.compile(r"\bbearer\s+\S+", re.IGNORECASE),
    re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"),
    re.compile(r"\[?\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7}\]?(?::\d+)?", re.I),
    # Host names of private networks.
    re.compile(r"(?<![\w.-])[\w.-]+\.(?:internal|local|svc|lan|corp|cluster)\b[\w.:-]*", re.I),
)
_REDACTED: Final = "[redacted]"
_LONG_KEY: Final = 16
"""Minimum characters of a key that is removed anywhere. A shorter key, such as `EMPTY`, can be an
ordinary word; it is removed only as a whole word in the same case."""

_MOST_LOGGED: Final = 4
_LOGGABLE: Final = re.compile(r"(?:[A-Za-z]+|\d{1,6})(?:[._-](?:[A-Za-z]+|\d{1,4}))*")
"""Matches words and short numbers: codes, types and reasons, but not keys."""


def _loggable(names: tuple[str, ...], model: Model) -> tuple[str, ...]:
    """Return the names of an error that can be logged, each once."""
    return tuple(
        name
        for name in dict.fromkeys(names)
        if _LOGGABLE.fullmatch(name) and scrub(name, model) == name
    )[:_MOST_LOGGED]


def scrub(text: str, model: Model) -> str:
    """Remove secrets and internal names from an upstream's text."""
    upstream = model.upstream
    host = urlsplit(upstream.base_url).hostname
    key = upstream.api_key
    for secret in (key if len(key) >= _LONG_KEY else "", upstream.base_url, host):
        if secret:
            text = re.sub(re.escape(secret), _REDACTED, text, flags=re.IGNORECASE)
    if 0 < len(key) < _LONG_KEY:
        text = re.sub(rf"(?<![\w-]){re.escape(key)}(?![\w-])", _REDACTED, text)
    text = text.replace(model.upstream_model, model.name)
    for pattern in _SECRETS:
        text = pattern.sub(_REDACTED, text)
    return text

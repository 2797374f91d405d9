"""What an upstream's refusal becomes: one table, from its HTTP status to a failure of ours.

    any              an account fault, see account_faults: UPSTREAM_ACCOUNT, without the text
    400, 409, 422    the caller's mistake: passed on with its message, type, param and code
    404              likewise, and stays 404
    413              REQUEST_TOO_LARGE
    403              about flagged input: the caller's mistake, without the text
    401, 402, 403    our own key or account: UPSTREAM_ACCOUNT, without the text; 412 likewise, which
                     Fireworks and Portkey send for a spent budget: we send no preconditions
    429              UPSTREAM_RATE_LIMITED with the wait, without the text
    408              UPSTREAM_TIMEOUT
    other 4xx, 5xx   UPSTREAM_ERROR, without the text; a 503 with the wait for our own retry
    1xx, 2xx, 3xx    UPSTREAM_INVALID_RESPONSE; a redirect is never followed

Texts that are passed on are scrubbed: of addresses, hosts, keys, organisations, and of the
upstream's name for the model.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from chatcompletion.v1 import error_pb2
from service import errors
from service.models import Model
from service.upstream import account_faults
from service.upstream.error_bodies import ErrorBody

LONGEST_RETRY_AFTER: Final = 120.0
"""Seconds; the official SDKs give up on a longer wait."""

_SHORTEST_RETRY_AFTER: Final = 0.001


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the wait that response headers ask for, in seconds up to 120, or None.

    Args:
        headers: By lower-case names. `retry-after-ms` wins over `retry-after`, which is a number of
            seconds or an HTTP date (RFC 9110, section 10.2.3).
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
        body: What the body says, or None if it says nothing.
        wait: What `retry_after` said.
        model: The model that was asked for.
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
    """Return the failure that a body or an event under the status 200 reports, or None.

    Args:
        body: What it says, or None if it says nothing.
        model: The model that was asked for.
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


def bare_account_fault(body: ErrorBody | None, model: Model) -> errors.Failure | None:
    """Return the account fault of a chunk without choices and without the member `error`, or None.

    No other failure is read from such a chunk: vendors put members of their own into sound ones.
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
    # The upstream refused before it worked: nothing is paid twice by a retry.
    return errors.UpstreamRateLimited(retry_after=wait)


def _unavailable(_: error_pb2.ApiError, wait: float | None, __: Model) -> errors.Failure:
    # The wait is for our own retry; the caller is not told to try again.
    return errors.UpstreamError(retry_after=wait, dispatched=True)


_FLAGGED: Final = "The model provider flagged the input."
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
    """Return the HTTP status that an error object tells in its code, 500 where it tells none."""
    told = error.code_number if error.HasField("code_number") else _number(error.code_text)
    return told if 400 <= told <= 599 else 500


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else 0


# Each takes time in proportion to the text, whatever that is: an upstream chooses it.
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
"""Characters. A shorter key can be a word of the language, such as `EMPTY`: only the whole word, in
the same case, is removed."""

_MOST_LOGGED: Final = 4
_LOGGABLE: Final = re.compile(r"(?:[A-Za-z]+|\d{1,6})(?:[._-](?:[A-Za-z]+|\d{1,4}))*")
"""Words and short numbers: what a code, a type or a reason looks like, and no key does."""


def _loggable(names: tuple[str, ...], model: Model) -> tuple[str, ...]:
    """Return the names of an error that an operator can be shown, each once."""
    return tuple(
        name
        for name in dict.fromkeys(names)
        if _LOGGABLE.fullmatch(name) and scrub(name, model) == name
    )[:_MOST_LOGGED]


def scrub(text: str, model: Model) -> str:
    """Remove from an upstream's text what is nobody's business at the front door."""
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

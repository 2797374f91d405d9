"""Converts an upstream's refusal to a failure of the contract, by its HTTP status.

    any              UPSTREAM_ACCOUNT, if `account_faults` recognizes an account fault
    400, 404, 422    UPSTREAM_ERROR, if `model_faults` recognizes that the upstream does not have
                     the model: the operator's mistake. Otherwise:
    400, 404, 422    INVALID_REQUEST with the same status, the upstream's message, type, param and
                     code, and the members beside them
    409              the same with status 422
    413              REQUEST_TOO_LARGE
    403              INVALID_REQUEST with status 403, if the caller's input was flagged; otherwise:
    401, 402, 403    UPSTREAM_ACCOUNT. 412 too: Fireworks and Portkey send it for a spent budget,
                     and the service sends no preconditions
    429              UPSTREAM_RATE_LIMITED, with the wait
    503, 529         UPSTREAM_UNAVAILABLE, with the wait: the upstream did no work
    408              UPSTREAM_TIMEOUT
    500              UPSTREAM_ERROR, with the text of the upstream's own error object, because
                     several servers answer a mistake of the caller with it
    other 4xx, 5xx   UPSTREAM_ERROR
    1xx, 2xx, 3xx    UPSTREAM_INVALID_RESPONSE; redirects are never followed

Every text and member that is forwarded is scrubbed.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from chatcompletion.v1.chat_completion_pb2 import ChatCompletion
from service import errors
from service.models import Model
from service.upstream import account_faults, model_faults
from service.upstream.error_bodies import ErrorBody
from service.upstream.error_reasons import ErrorObject
from service.upstream.scrubbing import scrub, scrub_members
from service.upstream_report import OPERATORS, Cause, UpstreamReport

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
    error = body.error or _NO_ERROR
    found, cause = _failure(status, body, error, wait, model)
    found.report = UpstreamReport(
        cause=cause,
        names=_loggable(body.names, model) if cause in OPERATORS else (),
        model=model.upstream_model if cause == "model" else "",
    )
    return found


def _failure(
    status: int, body: ErrorBody, error: ErrorObject, wait: float | None, model: Model
) -> tuple[errors.Failure, Cause]:
    if status == 403 and account_faults.is_flagged(body):
        return _flagged(error, model), "request"
    if status in _ACCOUNT or account_faults.is_account_fault(status, body):
        refused = errors.UpstreamAccount(dispatched=True)
        refused.refuses_key = status < HTTPStatus.INTERNAL_SERVER_ERROR
        return refused, "account"
    if model_faults.is_model_fault(status, body):
        missing = errors.UpstreamError(_NO_MODEL, dispatched=True)
        missing.asks_operator = True
        return missing, "model"
    if status == 429:
        # The upstream refused before it generated anything, so a retry does not pay twice.
        return errors.UpstreamRateLimited(retry_after=wait), "rate_limit"
    if status in _BUSY:
        return errors.UpstreamUnavailable(_IS_BUSY, retry_after=wait), "busy"
    make = _BY_STATUS.get(status)
    if make is None:
        make = _plain(errors.UpstreamError if status >= 400 else errors.UpstreamInvalidResponse)
    made = make(error, model, status)
    return made, "request" if made.default_cause is None else "status"


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
    if body.error is None and not isinstance(found, errors.UpstreamAccount):
        return None
    if found.report is not None:
        cause: Cause = "reported" if found.report.cause == "status" else found.report.cause
        found.report = replace(found.report, cause=cause)
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


_Make = Callable[[ErrorObject, Model, int], errors.Failure]


def _callers_mistake(error: ErrorObject, model: Model, status: int) -> errors.Failure:
    failure = errors.InvalidRequest(
        _words(error, model, status),
        param=scrub(error.param, model) or None,
        kind=scrub(error.type, model) or None,
        code=scrub(error.code, model) or None if isinstance(error.code, str) else error.code,
        dispatched=True,
    )
    failure.http_status = status
    failure.members = scrub_members(error.members, model)
    failure.refuses_options = _OPTIONS.search(f"{error.param} {error.message}") is not None
    return failure


def _conflict(error: ErrorObject, model: Model, _: int) -> errors.Failure:
    return _callers_mistake(error, model, HTTPStatus.UNPROCESSABLE_ENTITY)


def _flagged(error: ErrorObject, model: Model) -> errors.Failure:
    failure = _callers_mistake(error, model, HTTPStatus.FORBIDDEN)
    failure.message = _ID.sub(r"\1: [redacted]", failure.message)
    if failure.message == failure.default_message:
        failure.message = _FLAGGED
    failure.code = "content_filter"
    return failure


def _broken(error: ErrorObject, model: Model, status: int) -> errors.Failure:
    words = _words(error, model, status)
    if words is None or "Traceback" in words:
        return errors.UpstreamError(dispatched=True)
    return errors.UpstreamError(f"The model provider failed: {words}", dispatched=True)


def _words(error: ErrorObject, model: Model, status: int) -> str | None:
    """Return the message of an error, or None if it only repeats the status."""
    message = scrub(error.message, model).strip()
    phrase = HTTPStatus(status).phrase.casefold()
    return None if message.casefold().rstrip(".") in ("", phrase) else message


def _plain(kind: type[errors.Failure]) -> _Make:
    def make(_: ErrorObject, __: Model, ___: int) -> errors.Failure:
        return kind(dispatched=True)

    return make


_FLAGGED: Final = "The model provider flagged the input."
_IS_BUSY: Final = "The model provider is overloaded or loads the model. Try again later."
_NO_MODEL: Final = "The model provider does not have this model."
_OPTIONS: Final = re.compile(r"\b(?:stream_options|include_usage)\b")
_ID: Final = re.compile(r"\b(team|key ID|organization|project): [^\s,;]{1,128}", re.IGNORECASE)
"""Ids of the operator in the text of a 403, as xAI has them."""
_PROMPT_FILTERS: Final = frozenset({"prompt_filter_results", "prompt_annotations"})
_SAYS_NOTHING: Final = ErrorBody()
_NO_ERROR: Final = ErrorObject()

_ACCOUNT: Final = frozenset({401, 402, 403, 412})
_BUSY: Final = frozenset({503, 529})
_BY_STATUS: Final[Mapping[int, _Make]] = {
    400: _callers_mistake,
    404: _callers_mistake,
    408: _plain(errors.UpstreamTimeout),
    409: _conflict,
    413: _plain(errors.RequestTooLarge),
    422: _callers_mistake,
    500: _broken,
}


def status_of(error: ErrorObject) -> int:
    """Return the HTTP status that an error object under a success status stands for.

    It is the code or the status if that is a number, otherwise that of the name of the code, the
    status or the type, and 500 if there is none.
    """
    told = (error.code, *(error.members.get(name) for name in ("status", "status_code")))
    for number in map(_number, told):
        if 400 <= number <= 599:
            return number
    for name in (*told, error.type):
        status = _BY_NAME.get(name.casefold()) if isinstance(name, str) else None
        if status is not None:
            return status
    return 500


def _number(value: object) -> int:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) == 3 else 0
    return value if isinstance(value, int) else 0


_BY_NAME: Final[Mapping[str, int]] = {
    # OpenAI, vLLM
    "rate_limit_exceeded": 429,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "badrequesterror": 400,
    # Anthropic
    "rate_limit_error": 429,
    "overloaded_error": 529,
    "request_too_large": 413,
    # Google
    "resource_exhausted": 429,
    "invalid_argument": 400,
    "unavailable": 503,
    # others
    "too_many_requests": 429,
    "service_unavailable": 503,
    "server_overloaded": 503,
}
"""The statuses of codes, statuses and types, in lower case."""


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

"""Why a call failed at the upstream: for operators, in the log and in a counter.

    failure -> UpstreamReport -> the log line of the call, chat_upstream_failures_total

A report has codes from closed sets and short names, never a body or a text.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

Cause = Literal[
    "dns",
    "refused",
    "tls",
    "pool",
    "queue",
    "breaker",
    "descriptors",
    "timeout",
    "reset",
    "closed",
    "protocol",
    "request",
    "status",
    "account",
    "model",
    "busy",
    "rate_limit",
    "encoding",
    "too_large",
    "overrun",
    "not_json",
    "no_choices",
    "reported",
    "truncated",
    "other",
]

CAUSES: Final[dict[Cause, str]] = {
    "dns": "The name of the upstream does not resolve",
    "refused": "The connection was refused, or the network is unreachable",
    "tls": "The TLS handshake failed, such as for a certificate that is not valid",
    "pool": "All connections were in use for the connect timeout",
    "queue": "The upstream had `CHAT_UPSTREAM_MAX_CALLS` calls, and too many waited, or too long",
    "breaker": "The breaker of the upstream was open, so that nothing was sent",
    "descriptors": "The service has as many open files as the system allows",
    "timeout": "A clock ran out: connect, first byte, silence, or the whole call",
    "reset": "The connection was reset",
    "closed": "The upstream closed the connection before it responded",
    "protocol": "The response is not HTTP/1.1",
    "request": "400, 403, 404, 409, 413 or 422: the upstream refused the request of the caller",
    "status": "A status that no other row describes",
    "account": "The upstream refused the service's own key, credit or permission",
    "model": "The upstream does not have the model or the URL of the catalogue",
    "busy": "503 or 529: the upstream is overloaded, or loads the model",
    "rate_limit": "429: the upstream limits the requests of the service",
    "encoding": "The body is compressed, which the service did not ask for",
    "too_large": "The response or one event exceeds `CHAT_MAX_RESPONSE_BYTES`, or its headers "
    "64 KiB or 1,000 in number",
    "overrun": "The upstream exceeded the output limit within a tool call",
    "not_json": "The body or an event is not JSON of the expected form",
    "no_choices": "The completion has no choices",
    "reported": "A response with a success status reports an error",
    "truncated": "The response ended before it was complete",
    "other": "Anything else",
}
"""Each cause, and what happened."""

BreakerState = Literal["closed", "open", "half_open"]
BREAKER_STATES: Final[tuple[BreakerState, ...]] = ("closed", "open", "half_open")
"""Whether an upstream gets calls: all, none, or one at a time."""

OPERATORS: Final[frozenset[Cause]] = frozenset({"account", "model"})
"""The causes that only an operator can remove. They are logged as errors."""

_LARGEST_STATUS: Final = 999
_STATUSES: Final = frozenset(status.value for status in HTTPStatus)


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamReport:
    """The failure of a request to an upstream."""

    cause: Cause
    names: tuple[str, ...] = ()
    """The codes, types and reasons in the response, without secrets."""
    model: str = ""
    """The upstream's name of the model, if that is at fault."""


def status_label(status: int) -> str:
    """Return an HTTP status as the label of a metric, from a bounded set; "" for none."""
    if not 0 < status <= _LARGEST_STATUS:
        return ""
    return str(status) if status in _STATUSES else f"{status // 100}xx"

"""The failures of each route, as responses by HTTP status.

    "Errors: A, B." in the comment of an RPC    the reasons of the service
    OF_EVERY_ROUTE, OF_EVERY_CALL, OF_A_BODY    the reasons that the bridge adds

Each response lists its reasons, each with the `code` and the first sentence of its comment or
message.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from chatcompletion.reasons import RULES
from restbridge.error_responses import BRIDGE
from restbridge.headers import RATE_LIMIT

NEVER_SENT: Final = frozenset({"CANCELLED"})
"""Reasons that no caller receives."""

OF_OPERATORS: Final = frozenset({"ACCOUNT_NOT_FOUND", "API_KEY_NOT_FOUND", "ALREADY_EXISTS"})
"""Reasons of AccountService, which the bridge does not call."""

OF_NO_ROUTE: Final = frozenset({"UNKNOWN_URL", "METHOD_NOT_ALLOWED", "CORS_NOT_ALLOWED"})
"""Reasons of requests that are for no operation of the document."""

OF_EVERY_ROUTE: Final = (
    "MALFORMED_HTTP",
    "REQUEST_TIMEOUT",
    "HEADERS_TOO_LARGE",
    "INTERNAL",
    "OVERLOADED",
    "DRAINING",
)
OF_EVERY_CALL: Final = (*OF_EVERY_ROUTE, "DEADLINE_EXCEEDED", "SERVICE_UNAVAILABLE")
OF_A_BODY: Final = (
    "INVALID_JSON",
    "INVALID_REQUEST",
    "REQUEST_TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE",
    "UNSUPPORTED_CODING",
)

_ERRORS: Final = re.compile(r"^Errors: (.+)\.$", re.MULTILINE)
_EVERY: Final = "every ErrorReason"
_SENTENCE: Final = re.compile(r"(.+?[.])(?= [A-Z]|$)")
_RETRIED: Final = frozenset({402, 429, 503})
_CHARGED: Final = frozenset({502, 503, 504})
# The statuses of responses that can have a receipt.
# The statuses of responses that can have Retry-After.


def of_rpc(comment: str) -> tuple[str, ...]:
    """Return the reasons that the comment of an RPC lists.

    Raises:
        ValueError: The comment lists none, or one that the error table does not have.
    """
    found = _ERRORS.search(comment)
    if found is None:
        raise ValueError(f"no errors in {comment!r}")
    if found[1] == _EVERY:
        return tuple(reason for reason in RULES if reason not in NEVER_SENT | OF_OPERATORS)
    reasons = tuple(found[1].split(", "))
    if unknown := set(reasons) - set(RULES):
        raise ValueError(f"not in the error table: {sorted(unknown)}")
    return reasons


def responses(reasons: Iterable[str], comments: Mapping[str, str]) -> dict[str, Any]:
    """Return the responses of a route, by HTTP status.

    Args:
        reasons: The reasons of the route. Duplicates count once.
        comments: The comments of the `.proto` files, by full name.
    """
    by_status: dict[int, list[str]] = defaultdict(list)
    for reason in dict.fromkeys(reasons):
        rule = BRIDGE.get(reason)
        by_status[rule.status if rule else RULES[reason].http_status].append(reason)
    return {
        str(status): _response(status, found, comments)
        for status, found in sorted(by_status.items())
    }


def _response(status: int, reasons: list[str], comments: Mapping[str, str]) -> dict[str, Any]:
    headers = ["x-request-id", "x-should-retry"]
    if status in _RETRIED:
        headers += ["retry-after", "retry-after-ms"]
    if status == 401:
        headers.append("www-authenticate")
    if status == 429:
        headers += RATE_LIMIT
    if status in _CHARGED:
        headers.append("x-charge")
    return {
        "description": "\n".join(_line(reason, comments) for reason in reasons),
        "headers": {name: header(name) for name in headers},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
    }


def _line(reason: str, comments: Mapping[str, str]) -> str:
    if rule := BRIDGE.get(reason):
        return f"- `{rule.code}`: {rule.message}"
    comment = comments[f"chatcompletion.v1.ErrorReason.ERROR_REASON_{reason}"]
    found = _SENTENCE.match(comment)
    return f"- `{RULES[reason].code}`: {found[1] if found else comment}"


HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "x-request-id": ("string", "The id of the request, which is also in the logs."),
    "x-should-retry": (
        "string",
        "`true` if the same request can be sent again, otherwise `false`.",
    ),
    "x-charge": (
        "string",
        "The receipt: what the request cost, in nano-credits, of which for prompt and completion, "
        "and the id of its hold.",
    ),
    "x-chat-upstream": (
        "string",
        "The upstream that answered, if the operator shows it.",
    ),
    "idempotent-replayed": (
        "string",
        "`true` if the answer is that of another request with the same idempotency key.",
    ),
    "retry-after": ("integer", "How long to wait before a retry, in seconds."),
    "retry-after-ms": ("integer", "How long to wait before a retry, in milliseconds."),
    "www-authenticate": ("string", "`Bearer`."),
    "openai-processing-ms": (
        "integer",
        "Milliseconds from the arrival of the call at the service to the start of its response.",
    ),
    **{
        name: text
        for unit in ("requests", "tokens")
        for name, text in {
            f"x-ratelimit-limit-{unit}": ("integer", f"The key's limit of {unit} per minute."),
            f"x-ratelimit-remaining-{unit}": ("integer", f"The {unit} that are left."),
            f"x-ratelimit-reset-{unit}": (
                "string",
                f"The time until all {unit} of the limit are available, such as `1.5s`.",
            ),
        }.items()
    },
}
"""The type and the meaning of each response header."""


def header(name: str) -> dict[str, Any]:
    """Return a reference to a response header."""
    return {"$ref": f"#/components/headers/{name}"}


def headers() -> dict[str, Any]:
    """Return the response headers as components. None is in every response."""
    return {
        name: {"description": text, "schema": {"type": kind}}
        for name, (kind, text) in HEADERS.items()
    }

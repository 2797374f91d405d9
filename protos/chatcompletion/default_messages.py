"""The messages of failures that service and bridge share, and the default of each reason.

service      raises a failure              DEFAULT_MESSAGES
restbridge   detects a failure itself      BRIDGE_MESSAGES, otherwise DEFAULT_MESSAGES
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

DEFAULT_MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "INVALID_API_KEY": "Incorrect API key provided.",
        "SUSPENDED": "This account or API key is suspended. Contact the operator.",
        "INSUFFICIENT_CREDITS": "The account's credit does not cover this request.",
        "CREDITS_HELD": "The account's credit is held for requests in flight; try again shortly.",
        "BUDGET_EXCEEDED": "A budget does not cover this request until it is reset.",
        "MODEL_NOT_ALLOWED": "The API key may not use this model.",
        "MODEL_NOT_FOUND": "The model does not exist.",
        "REQUEST_TOO_LARGE": "The request is too large.",
        "INVALID_REQUEST": "The request is not valid.",
        "RATE_LIMITED": "Rate limit reached.",
        "UPSTREAM_RATE_LIMITED": "The model provider limits the rate of requests. Try again later.",
        "INTERNAL": "The server had an error while processing the request.",
        "UPSTREAM_UNAVAILABLE": "The model provider could not be reached. Try again later.",
        "UPSTREAM_ERROR": "The model provider failed to complete the request.",
        "UPSTREAM_TIMEOUT": "The model provider did not respond in time.",
        "UPSTREAM_INVALID_RESPONSE": "The response of the model provider is not a chat completion.",
        "UPSTREAM_TRUNCATED": "The response of the model provider ended before it was complete.",
        "UPSTREAM_ACCOUNT": "The model provider rejected this server's credentials.",
        "OVERLOADED": "The server is overloaded; try again shortly.",
        "DRAINING": "The server is shutting down.",
        "STORE_UNAVAILABLE": "The accounts cannot be reached; try again shortly.",
        "DEADLINE_EXCEEDED": "The deadline of the request passed.",
        "CANCELLED": "The caller left.",
        "ACCOUNT_NOT_FOUND": "There is no account of this name.",
        "API_KEY_NOT_FOUND": "The account has no key of this name.",
        "ALREADY_EXISTS": "The name is taken.",
        "IDEMPOTENCY_CONFLICT": (
            "This idempotency key was used for another request. Use a new key for each request."
        ),
        "ANSWER_NOT_KEPT": (
            "The request with this idempotency key was completed and charged, but its answer was "
            "not kept. It is not run again; to run it again, use a new key."
        ),
    }
)
"""One sentence or two for each reason of `chatcompletion.reasons.RULES`."""

LONGEST_QUOTE: Final = 64
"""Maximum characters of a caller's value in a message."""


def quoted(value: str) -> str:
    """Return a caller's value in quotation marks, shortened and without control characters."""
    shown = value if len(value) <= LONGEST_QUOTE else value[: LONGEST_QUOTE - 1] + "…"
    return f"'{shown if shown.isprintable() else json.dumps(shown)[1:-1]}'"


def too_large(most: int, size: int | None = None) -> str:
    """Return the message for a request that is too large.

    Args:
        most: The maximum size in bytes.
        size: The size in bytes, if it is known.
    """
    limit = f"{most // 2**20} MiB" if most % 2**20 == 0 else f"{most} bytes"
    got = ""
    if size is not None:
        got = f", but got {size / 2**20:.1f} MiB"
        if size < 2**20 or got.endswith(f" {most / 2**20:.1f} MiB"):
            limit, got = f"{most} bytes", f", but got {size} bytes"
    return (
        f"Request too large: expected at most {limit}{got}. "
        "Shorten the messages, or send smaller pictures and files."
    )


BRIDGE_MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "REQUEST_TOO_LARGE": "The request is larger than this server accepts.",
        "INTERNAL": "The server had an internal error.",
        "OVERLOADED": "The server has as many requests as it accepts. Try again later.",
    }
)
"""The messages that replace the defaults if the bridge detects the failure itself."""

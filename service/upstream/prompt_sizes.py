"""Measures what an upstream adds to prompts: short conversations, of which it reports the tokens.

Model -> POST /chat/completions with max_tokens 1, once for each of CONVERSATIONS -> Sizes
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from service.models import Model
from service.upstream.sent_request import JSON, address, identified
from service.upstream.single_request import single

CONVERSATIONS: Final[Sequence[tuple[str, ...]]] = (
    ("user",),
    ("user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
    ("system", "user"),
    ("system", "user", "assistant", "user"),
)
"""The roles of the messages of each request. The content of each message is one letter."""

_CONTENT: Final = "a"
_MOST: Final = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The reported tokens of prompts."""

    tokens: dict[tuple[str, ...], int]
    """The tokens of each conversation that the upstream accepted."""
    error: str = ""
    """Why the first conversation, or all of them, have no tokens; "" if they have."""


async def prompt_sizes(
    transport: httpx.AsyncBaseTransport, model: Model, *, within: float
) -> Sizes:
    """Return the tokens of the prompts of short conversations. Errors are part of the result.

    Some templates reject a system message; such a conversation is left out.

    Args:
        transport: The transport of the requests.
        model: The model at one upstream.
        within: Maximum seconds for each request.
    """
    found: dict[tuple[str, ...], int] = {}
    for roles in CONVERSATIONS:
        received = await single(transport, _request(model, roles), within=within)
        if received.error:
            return Sizes(tokens=found, error=received.error)
        if not 200 <= received.status < 300:
            if not found:
                error = f"POST /chat/completions returned HTTP {received.status}"
                return Sizes(tokens=found, error=error)
            continue
        tokens = _prompt_tokens(received.body)
        if tokens is None:
            return Sizes(tokens=found, error="it reports no usage.prompt_tokens")
        found[roles] = tokens
    return Sizes(tokens=found)


def _request(model: Model, roles: Sequence[str]) -> httpx.Request:
    upstream, dialect = model.upstream, model.dialect
    document = {
        "model": model.upstream_model,
        "messages": [{"role": role, "content": _CONTENT} for role in roles],
        model.output_limit: 1,
    }
    own = [(b"accept", JSON.encode()), (b"accept-encoding", b"identity")]
    own.append((b"content-type", JSON.encode()))
    return httpx.Request(
        "POST",
        address(upstream.base_url, "/chat/completions", dialect.query),
        headers=identified(own, upstream.api_key, dialect),
        content=json.dumps(document).encode(),
    )


def _prompt_tokens(body: bytes) -> int | None:
    try:
        document: Any = json.loads(body)
        tokens = document["usage"]["prompt_tokens"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return tokens if type(tokens) is int and 0 < tokens <= _MOST else None

"""Asks an upstream for its models: GET /models, once, for `python -m service check`.

Upstream -> GET {base_url}/models, in its dialect -> {"data": [{"id": …}, …]} -> Listing
"""

import json
from dataclasses import dataclass
from typing import Any, Final

import httpx

from service.models import Upstream
from service.upstream.sent_request import JSON, address, identified
from service.upstream.single_request import single

_MOST: Final = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The answer of an upstream."""

    names: tuple[str, ...] = ()
    """The models that it lists."""
    status: int = 0
    """The HTTP status of the response; 0 if there is none."""
    error: str = ""
    """Why there is no list; "" if there is one."""


async def list_models(
    transport: httpx.AsyncBaseTransport, upstream: Upstream, *, within: float
) -> Listing:
    """Return the models that an upstream lists. Errors are part of the result.

    Args:
        transport: The transport of the requests.
        upstream: The upstream.
        within: Maximum seconds for the whole exchange.
    """
    own = [(b"accept", JSON.encode()), (b"accept-encoding", b"identity")]
    request = httpx.Request(
        "GET",
        address(upstream.base_url, "/models", upstream.dialect.query),
        headers=identified(own, upstream.api_key, upstream.dialect),
    )
    received = await single(transport, request, within=within)
    status = received.status
    if received.error:
        return Listing(error=received.error)
    if not 200 <= status < 300:
        return Listing(status=status, error=f"GET /models returned HTTP {status}")
    names = _names(received.body)
    if names is None:
        return Listing(status=status, error="GET /models returned no list of models")
    return Listing(status=status, names=names)


def _names(body: bytes) -> tuple[str, ...] | None:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    entries = document.get("data") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        return None
    named = (entry.get("id") for entry in entries[:_MOST] if isinstance(entry, dict))
    return tuple(name for name in named if isinstance(name, str) and name.isprintable())

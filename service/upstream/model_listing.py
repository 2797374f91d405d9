"""Asks an upstream for its models: GET /models, once, for `python -m service check`.

Upstream -> GET {base_url}/models, in its dialect -> {"data": [{"id": …}, …]} -> Listing
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, cast

import httpx

from service.models import Upstream
from service.upstream.sent_request import JSON, address, identified

_LARGEST: Final = 8 * 1024 * 1024
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
    request.extensions["timeout"] = {"connect": within, "pool": within, "read": None, "write": None}
    try:
        async with asyncio.timeout(within):
            response = await transport.handle_async_request(request)
            try:
                body = await _body(response)
            finally:
                await response.aclose()
    except TimeoutError:
        return Listing(error=f"no answer within {within:g} seconds")
    except httpx.ConnectError as error:
        return Listing(error=f"cannot connect{_why(error)}")
    except httpx.TransportError as error:
        return Listing(error=f"the connection failed{_why(error)}")
    status = response.status_code
    if not response.is_success:
        return Listing(status=status, error=f"GET /models returned HTTP {status}")
    names = _names(body)
    if names is None:
        return Listing(status=status, error="GET /models returned no list of models")
    return Listing(status=status, names=names)


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in cast("AsyncIterator[bytes]", response.stream):
        body += piece
        if len(body) > _LARGEST:
            break
    return bytes(body)


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


def _why(error: BaseException | None) -> str:
    """Return the error of the system behind an error of the HTTP client."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return f": {error.strerror}"
        error = error.__cause__ or error.__context__
    return ""

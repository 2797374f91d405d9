"""Sends one request to an upstream and reads the whole response, for commands.

httpx.Request -> single -> the status and the body, or why there is no response
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, cast

import httpx

LARGEST: Final = 8 * 1024 * 1024
"""Bytes of a body that are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """The response of an upstream."""

    status: int = 0
    """The HTTP status; 0 if there is no response."""
    body: bytes = b""
    error: str = ""
    """Why there is no response; "" if there is one."""


async def single(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, *, within: float
) -> Received:
    """Send a request once. Errors are part of the result.

    Args:
        transport: The transport.
        request: The request.
        within: Maximum seconds for the whole exchange.
    """
    request.extensions["timeout"] = {"connect": within, "pool": within, "read": None, "write": None}
    try:
        async with asyncio.timeout(within):
            response = await transport.handle_async_request(request)
            try:
                body = await _body(response)
            finally:
                await response.aclose()
    except TimeoutError:
        return Received(error=f"no answer within {within:g} seconds")
    except httpx.ConnectError as error:
        return Received(error=f"cannot connect{_why(error)}")
    except httpx.TransportError as error:
        return Received(error=f"the connection failed{_why(error)}")
    return Received(status=response.status_code, body=body)


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in cast("AsyncIterator[bytes]", response.stream):
        body += piece
        if len(body) > LARGEST:
            break
    return bytes(body)


def _why(error: BaseException | None) -> str:
    """Return the error of the system behind an error of the HTTP client."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return f": {error.strerror}"
        error = error.__cause__ or error.__context__
    return ""

"""The receiver of events: one HTTP request for each attempt.

    post(body, headers) -> Reply          errors of the network are replies without a status

Redirects are not followed: a 3xx is a failure. The body of a response is read up to a limit, so
that the connection can be used again, and thrown away.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final, cast

import httpx

from service.upstream.client_failures import CLIENT_ERRORS, cause_of
from service.webhooks.cloud_events import CONTENT_TYPE
from service.webhooks.schedule import SECOND, Reply

LARGEST_BODY: Final = 64 * 1024
"""Maximum bytes of a response that are read."""

_USER_AGENT: Final = "chatcompletion/0.1"
_MOST_SECONDS: Final = 86_400


class Endpoint:
    """The receiver.

    Args:
        transport: The transport of the requests.
        url: The URL.
        authorization: The value of the header `authorization`; "" for none.
        within: Maximum seconds for an attempt.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        url: str,
        *,
        authorization: str = "",
        within: float,
    ) -> None:
        self._transport = transport
        self._url = httpx.URL(url)
        self._within = within
        self._headers = {
            "host": self._url.netloc.decode("ascii"),
            "content-type": CONTENT_TYPE,
            "accept-encoding": "identity",
            "user-agent": _USER_AGENT,
        }
        if authorization:
            self._headers["authorization"] = authorization

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send a request and return the reply."""
        timeout = dict.fromkeys(("connect", "pool", "read", "write"), self._within)
        request = httpx.Request(
            "POST",
            self._url,
            headers={**self._headers, **headers, "content-length": str(len(body))},
            stream=httpx.ByteStream(body),
            extensions={"timeout": timeout},
        )
        try:
            async with asyncio.timeout(self._within):
                return await self._reply(request)
        except TimeoutError:
            return Reply(failure="timeout")
        except CLIENT_ERRORS as error:
            return Reply(failure=cause_of(error, "other"))

    async def _reply(self, request: httpx.Request) -> Reply:
        response = await self._transport.handle_async_request(request)
        try:
            size = 0
            async for piece in cast("AsyncIterator[bytes]", response.stream):
                size += len(piece)
                if size > LARGEST_BODY:
                    break
        finally:
            await response.aclose()
        return Reply(
            status=response.status_code,
            retry_after=_seconds(response.headers.get("retry-after", "")) * SECOND,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


def _seconds(text: str) -> int:
    """Return the seconds of a Retry-After; 0 if it has another form, or is a date."""
    is_number = text.isascii() and text.isdigit() and len(text) <= 6
    return min(int(text), _MOST_SECONDS) if is_number else 0

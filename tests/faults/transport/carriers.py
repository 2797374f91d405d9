"""A client on one transport: ours or httpx's own, which must behave in the same way."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from service.upstream.transport.http11 import Http11Transport
from tests.support.footprint import Footprint

TIMEOUTS: Final[Mapping[str, float]] = {"connect": 10.0, "pool": 10.0, "read": 10.0, "write": 10.0}


def _ours(context: ssl.SSLContext, size: int, keepalive: float) -> httpx.AsyncBaseTransport:
    return Http11Transport(context, max_connections=size, keepalive=keepalive)


def _httpxs(context: ssl.SSLContext, size: int, keepalive: float) -> httpx.AsyncBaseTransport:
    limits = httpx.Limits(max_connections=size, keepalive_expiry=keepalive)
    return httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits)


@dataclass(frozen=True, slots=True)
class Received:
    """A response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Client:
    """Sends requests on one transport."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport

    async def open(
        self,
        url: str,
        method: str = "POST",
        *,
        timeouts: Mapping[str, float] = {},
        extensions: Mapping[str, Any] = {},
        **members: Any,
    ) -> httpx.Response:
        """Return a response whose body is not read."""
        members.setdefault("content", b"{}" if method == "POST" else None)
        own = {"timeout": {**TIMEOUTS, **timeouts}, **extensions}
        request = httpx.Request(method, url, extensions=own, **members)
        return await self.transport.handle_async_request(request)

    async def ask(self, url: str, method: str = "POST", **options: Any) -> Received:
        """Return a response with its whole body."""
        response = await self.open(url, method, **options)
        try:
            body = b"".join([piece async for piece in pieces(response)])
        finally:
            await response.aclose()
        return Received(response.status_code, response.headers.raw, body)


def pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """Return the body, piece by piece, as the transport gives it."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    return aiter(stream)


@dataclass(frozen=True, slots=True)
class Carrier:
    """One of the transports."""

    name: str
    make: Callable[[ssl.SSLContext, int, float], httpx.AsyncBaseTransport]

    @asynccontextmanager
    async def client(
        self, *, size: int = 10, keepalive: float = 60.0, authority: ssl.SSLContext | None = None
    ) -> AsyncIterator[Client]:
        """Yield a client, close it, and check that it leaves nothing behind."""
        # uvloop keeps a descriptor after its first stream.
        (await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)).close()
        before = Footprint.take()
        context = authority or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = self.make(context, size, keepalive)
        try:
            yield Client(transport)
        finally:
            await transport.aclose()
        await before.returns()


OURS: Final = Carrier("ours", _ours)
HTTPXS: Final = Carrier("httpx's", _httpxs)

"""Requests that share their URL and most of their headers.

    Opening          POST, the URL, and the headers of all requests: checked and written once
    PreparedRequest  an opening, the other headers, the body

httpx normalizes every header of a request, and the transport writes every one. Requests to one
upstream differ in few of them. A `PreparedRequest` is a request of httpx for any of its transports;
only if one reads `headers`, they are made.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import httpx

from service.upstream.transport import request_head

_PORTS: Final = {"http": 80, "https": 443}


class Opening:
    """What several requests have in common.

    Args:
        method: Their method.
        url: Their URL.
        headers: The headers that they share.
    """

    def __init__(
        self, method: str, url: httpx.URL, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers

    @cached_property
    def server(self) -> tuple[bool, str, int]:
        """Whether the server uses TLS, its host and its port.

        Raises:
            httpx.UnsupportedProtocol: The URL is not one of HTTP.
        """
        url = self.url
        port = _PORTS.get(url.scheme)
        if port is None or not url.host:
            raise httpx.UnsupportedProtocol("The URL is not one of HTTP.")
        return url.scheme == "https", url.raw_host.decode("ascii"), url.port or port

    @cached_property
    def head(self) -> bytes:
        """The request line and the headers.

        Raises:
            httpx.LocalProtocolError: They are malformed.
        """
        return request_head.begin(self.method, self.url.raw_path, self.headers)


class PreparedRequest(httpx.Request):
    """A request with an opening.

    Args:
        opening: What it has in common with others.
        own: The other headers.
        body: The body.
        extensions: The extensions, as httpx has them.
    """

    def __init__(
        self,
        opening: Opening,
        own: Sequence[tuple[bytes, bytes]],
        body: bytes,
        extensions: Mapping[str, Any],
    ) -> None:
        # Without the constructor of httpx, which normalizes the headers.
        self.method = opening.method
        self.url = opening.url
        self.extensions = dict(extensions)
        self.stream = httpx.ByteStream(body)
        self.opening: Final = opening
        self.own: Final = own
        self.body: Final = body

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # made when it is first read
        """All headers."""
        return httpx.Headers([*self.opening.headers, *self.own])

    @property
    def content(self) -> bytes:
        """The body."""
        return self.body

    def read(self) -> bytes:
        """Return the body."""
        return self.body

    async def aread(self) -> bytes:
        """Return the body."""
        return self.body

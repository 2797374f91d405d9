"""httpx's transport interface on top of the pool.

    Request -> request_head -> pool.acquire -> exchange -> Response -> its stream -> pool.give_back

The timeouts are those of the request's extension `timeout`, as in httpx: `pool` for a free place in
the pool, `connect` for a new connection, `write` and `read` for each wait. Every error is the one
that httpx's own transport raises, or a subclass of it. Each request is sent once. With the
extension `fresh`, it is sent on a new connection.
"""

import ssl
from collections.abc import AsyncIterator

import httpx

from service.upstream.transport import request_head
from service.upstream.transport.connection import Connection
from service.upstream.transport.pool import Origin, Pool
from service.upstream.transport.prepared import Opening, PreparedRequest


class Http11Transport(httpx.AsyncBaseTransport):
    """An HTTP/1.1 transport.

    Args:
        context: The TLS context.
        max_connections: Maximum connections to all servers together.
        keepalive: Maximum seconds that a connection is idle, unless a request has the extension
            `keepalive`.
    """

    def __init__(self, context: ssl.SSLContext, *, max_connections: int, keepalive: float) -> None:
        context.set_alpn_protocols(["http/1.1"])
        self._keepalive = keepalive
        self._pool = Pool(context, size=max_connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response. Close the stream of the response.

        Raises:
            httpx.TransportError: There is no response.
        """
        if isinstance(request, PreparedRequest):
            opening, headers, body = request.opening, request.own, request.body
        else:
            opening = Opening(request.method, request.url)
            headers, body = request.headers.raw, await request.aread()
        keepalive: float = request.extensions.get("keepalive", self._keepalive)
        origin = Origin(*opening.server, keepalive)
        head, chunked = request_head.write(opening.head, headers, body)
        if chunked:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        read = timeouts.get("read")
        pool = self._pool
        connection = await pool.acquire(
            origin,
            wait=timeouts.get("pool"),
            connect=timeouts.get("connect"),
            fresh=request.extensions.get("fresh", False),
        )
        try:
            await connection.exchange(
                head,
                body,
                bodiless=request.method == "HEAD",
                read=read,
                write=timeouts.get("write"),
            )
        except BaseException:
            pool.drop(connection)
            raise
        parser = connection.parser
        headers, parser.headers = parser.headers, []  # the response copies them
        return httpx.Response(
            parser.status,
            headers=headers,
            stream=ResponseBody(connection, pool, read),
            extensions={"http_version": parser.version, "reason_phrase": parser.reason},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class ResponseBody(httpx.AsyncByteStream):
    """The body of a response, as it arrives."""

    __slots__ = ("_begun", "_connection", "_ended", "_pool", "_read")

    def __init__(self, connection: Connection, pool: Pool, read: float | None) -> None:
        self._connection: Connection | None = connection
        self._pool = pool
        self._read = read
        self._begun = False
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is None:
            raise StopAsyncIteration if self._ended else httpx.StreamClosed
        self._begun = True
        try:
            data = await connection.read(self._read)
        except BaseException:
            self._connection = None
            self._pool.drop(connection)
            raise
        if data:
            return data
        self._ended = True
        self._connection = None
        self._pool.give_back(connection)
        raise StopAsyncIteration

    def take_whole(self) -> bytes | None:
        """Return the body and end it, if nothing of it was read and all of it has arrived."""
        connection = self._connection
        if connection is None or self._begun or not connection.parser.complete:
            return None
        self._ended = True
        self._connection = None
        data = connection.parser.take()
        self._pool.give_back(connection)
        return data

    async def aclose(self) -> None:
        """Return the connection to the pool, or close it if the body was not read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)

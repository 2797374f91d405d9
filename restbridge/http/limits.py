"""Limits on the size, duration and number of requests.

limit                      otherwise   enforced in
head, bytes and headers    431         protocol
head, seconds              408         protocol
connections                503         protocol
body, type and coding      415         here
body, bytes                413         here, before reading if the length is given
body, seconds              408         here
requests in flight         503         here
bodies in flight, bytes    503         here
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Final, Self

from starlette.types import ASGIApp, Receive, Scope, Send

from chatcompletion.default_messages import quoted, too_large
from restbridge.error_responses import ErrorResponse, RefusedError, of_reason
from restbridge.headers import single
from restbridge.http.exchange import exchange_of, left

_JSON: Final = re.compile(rb"application/([a-z0-9!#$&^_.+-]+\+)?json[ \t]*(;.*)?", re.IGNORECASE)


LINGER: Final = 2.0
"""Seconds during which the rest of a rejected body is discarded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of one bridge. Sizes in bytes, times in seconds."""

    connections: int = 10_000
    head_bytes: int = 64 * 1024
    """Maximum size of the request line and headers together."""
    headers: int = 100
    """Maximum number of headers. nginx and Node accept some thousand, Apache 100; SDKs send 20."""
    head_seconds: float = 10.0
    """Maximum time from the connection or the first byte until the head is complete."""
    body_bytes: int = 32 * 1024 * 1024
    body_seconds: float = 30.0
    """Maximum time until the body is complete."""
    bodies_bytes: int = 256 * 1024 * 1024
    """Maximum size of all bodies in memory."""
    idle_seconds: float = 75.0
    """Maximum time between two requests on a connection."""
    exchange_seconds: float = 660.0
    """Maximum duration of an exchange, including a slow reader; then the connection is reset."""
    stall_seconds: float = 120.0
    """Maximum time in which a client reads nothing."""
    in_flight: int = 1000
    """Maximum concurrent requests to the API."""


class InFlight:
    """Limits the number of concurrent requests of all applications that it wraps.

    Args:
        maximum: The maximum number of requests.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._running = 0

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return the application with the limit. It raises `RefusedError` if no place is free."""

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            if self._running >= self._maximum:
                raise RefusedError(of_reason("OVERLOADED"))
            self._running += 1
            try:
                await app(scope, receive, send)
            finally:
                self._running -= 1

        return bounded


def check_json(scope: Scope) -> None:
    """Raise `RefusedError` unless the headers announce plain JSON."""
    kind = single(scope["headers"], b"content-type")
    if kind is None or not _JSON.fullmatch(kind):
        raise RefusedError(
            of_reason(
                "UNSUPPORTED_MEDIA_TYPE",
                message="Invalid 'Content-Type' header: expected application/json, but got "
                f"{'none or several' if kind is None else quoted(kind.decode('latin-1'))} instead.",
            )
        )
    codings = [value for name, value in scope["headers"] if name == b"content-encoding"]
    for coding in codings:
        if coding.strip().lower() != b"identity":
            raise RefusedError(
                of_reason(
                    "UNSUPPORTED_CODING",
                    message="Invalid 'Content-Encoding' header: expected a body that is not "
                    f"compressed, but got {quoted(coding.decode('latin-1'))} instead.",
                )
            )


class Bodies:
    """Reads request bodies within the limits on each body and on all bodies together.

    Args:
        limits: The limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    def holding(self) -> "Body":
        """Return a reader. The bytes that it reads count until its context ends."""
        return Body(self, self._limits)

    def hold(self, size: int) -> None:
        """Count `size` more bytes, or raise `RefusedError` if they are too many."""
        if self._held + size > self._limits.bodies_bytes:
            raise RefusedError(of_reason("OVERLOADED"))
        self._held += size

    def let_go(self, size: int) -> None:
        """Count `size` fewer bytes."""
        self._held -= size


class Body:
    """The body of one request."""

    def __init__(self, bodies: Bodies, limits: Limits) -> None:
        self._bodies = bodies
        self._limits = limits
        self.size = 0
        """The number of bytes that were read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.let_go(self.size)

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Read the body to its end.

        Raises:
            RefusedError: The body is too large or too slow, or the client disconnected.
        """
        length = single(scope["headers"], b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            raise RefusedError(self._too_large(int(length)))
        exchange = exchange_of(scope)
        # A clock is dearer than a usual body, which has arrived with its head.
        if exchange.connection.has_body:
            body = await self._pieces(receive)
        else:
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    body = await self._pieces(receive)
            except TimeoutError:
                raise RefusedError(of_reason("REQUEST_TIMEOUT")) from None
        exchange.body_is_pending = False
        return body

    def _too_large(self, size: int | None = None) -> ErrorResponse:
        message = too_large(self._limits.body_bytes, size)
        return of_reason("REQUEST_TOO_LARGE", message=message)

    async def _pieces(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise left()
            piece: bytes = message.get("body", b"")
            if self.size + len(piece) > self._limits.body_bytes:
                raise RefusedError(self._too_large())
            self._bodies.hold(len(piece))
            self.size += len(piece)
            more = message.get("more_body", False)
            if not more and not body:
                return piece
            body += piece
        return bytes(body)

"""What a stranger may send, and how many at a time.

LIMITS                     otherwise   found in
head, bytes and headers    431         protocol
head, seconds              408         protocol
connections                503         protocol
body, type and coding      415         here
body, bytes                413         here, before it is read where its length is given
body, seconds              408         here
requests in flight         503         here
bodies in flight, bytes    503         here
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from restbridge.error_responses import RefusedError, of_reason
from restbridge.headers import single
from restbridge.http.exchange import exchange_of, left

_JSON: Final = re.compile(rb"application/([a-z0-9!#$&^_.+-]+\+)?json[ \t]*(;.*)?", re.IGNORECASE)


LINGER: Final = 2.0
"""Seconds for which the rest of a refused body is read away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of one bridge. Sizes in bytes, times in seconds."""

    connections: int = 10_000
    head_bytes: int = 64 * 1024
    """Request line and headers together."""
    headers: int = 100
    """nginx and Node accept a few thousand, Apache 100; the SDKs send about 20."""
    head_seconds: float = 10.0
    """From the first byte, or from the connection, until the head is complete."""
    body_bytes: int = 8 * 1024 * 1024
    body_seconds: float = 30.0
    """Until the body is complete."""
    bodies_bytes: int = 256 * 1024 * 1024
    """All bodies together that are held at one time."""
    idle_seconds: float = 75.0
    """Between two requests on a connection."""
    exchange_seconds: float = 660.0
    """A whole exchange, a reader that does not read included; then the connection is reset."""
    stall_seconds: float = 120.0
    """For how long a client may take nothing of what is sent to it."""
    in_flight: int = 1000
    """Requests to the API."""


class InFlight:
    """Lets a bounded number of requests run at a time. The count is shared by all it wraps.

    Args:
        maximum: How many.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._running = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one place; raises `RefusedError` where there is none."""
        if self._running >= self._maximum:
            raise RefusedError(of_reason("OVERLOADED"))
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return the application, bounded."""

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            with self.one():
                await app(scope, receive, send)

        return bounded


def check_json(scope: Scope) -> None:
    """Raise `RefusedError` unless the headers announce plain JSON."""
    kind = single(scope["headers"], b"content-type")
    if kind is None or not _JSON.fullmatch(kind):
        raise RefusedError(of_reason("UNSUPPORTED_MEDIA_TYPE"))
    codings = [value for name, value in scope["headers"] if name == b"content-encoding"]
    if any(coding.strip().lower() != b"identity" for coding in codings):
        raise RefusedError(of_reason("UNSUPPORTED_CODING"))


class Bodies:
    """Reads request bodies, each and all together within limits.

    Args:
        limits: The limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @contextmanager
    def holding(self) -> Iterator["Body"]:
        """Give a reader; what it read counts until the context ends."""
        body = Body(self, self._limits)
        try:
            yield body
        finally:
            self._held -= body.size

    def hold(self, size: int) -> None:
        """Count so many bytes more; raises `RefusedError` where they are too many."""
        if self._held + size > self._limits.bodies_bytes:
            raise RefusedError(of_reason("OVERLOADED"))
        self._held += size


class Body:
    """The body of one request."""

    def __init__(self, bodies: Bodies, limits: Limits) -> None:
        self._bodies = bodies
        self._limits = limits
        self.size = 0
        """How many bytes were read."""

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Read the body to its end.

        Raises:
            RefusedError: it is too large or too slow, or the caller left.
        """
        length = single(scope["headers"], b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            raise RefusedError(of_reason("REQUEST_TOO_LARGE"))
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

    async def _pieces(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise left()
            piece: bytes = message.get("body", b"")
            if self.size + len(piece) > self._limits.body_bytes:
                raise RefusedError(of_reason("REQUEST_TOO_LARGE"))
            self._bodies.hold(len(piece))
            self.size += len(piece)
            more = message.get("more_body", False)
            if not more and not body:
                return piece
            body += piece
        return bytes(body)

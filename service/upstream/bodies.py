"""The body of a response, within the timeouts for silence.

read     the whole body of a unary response, or of a refusal
Pieces   that of a stream, as it arrives
finish   what follows the last event of a stream
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from typing import Final, Self, cast

import httpx

from service import errors
from service.upstream.client_failures import CLIENT_ERRORS, cause_of, failure_of
from service.upstream.silence import Silence
from service.upstream.transport.http11 import ResponseBody

_LARGEST_REST: Final = 64 * 1024
_LONGEST_REST: Final = 0.1
"""Maximum seconds and bytes after `[DONE]`; beyond them, the connection is closed, not kept."""


async def read(body: httpx.AsyncByteStream, limit: int, *, first: float, idle: float) -> bytes:
    """Return the body. Of a larger one, return one or more bytes beyond the limit.

    Args:
        body: The body.
        limit: The number of bytes.
        first: Maximum seconds before the first piece.
        idle: Maximum seconds before each later piece.

    Raises:
        Failure: The upstream is silent for too long, or the body breaks off.
    """
    if isinstance(body, ResponseBody) and (whole := body.take_whole()) is not None:
        return whole  # it arrived with its head, as most do
    rest = aiter(body)
    found = bytearray()
    with closing(Silence(first)) as silence:
        while len(found) <= limit:
            try:
                with silence:
                    found += await anext(rest)
            except StopAsyncIteration:
                break
            except (TimeoutError, *CLIENT_ERRORS) as error:
                raise _failure_of(error) from error
            silence.longest = idle
    return bytes(found)


class Pieces:
    """The body as it arrives: an asynchronous iterator over its pieces. Close it at the end.

    No reference to a piece is kept: a caller who does not read would keep the piece in memory.

    Args:
        body: The body.
        first: Maximum seconds before the first piece.
        idle: Maximum seconds before each later piece.

    Raises:
        Failure: As for `read`.
    """

    __slots__ = ("_idle", "_is_first", "_rest", "_silence")

    def __init__(self, body: httpx.AsyncByteStream, *, first: float, idle: float) -> None:
        self._rest = aiter(body)
        self._idle = idle
        self._is_first = True
        self._silence = Silence(first)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                with self._silence:
                    piece = await anext(self._rest)
            except (TimeoutError, *CLIENT_ERRORS) as error:
                raise _failure_of(error) from error
            if self._is_first:
                self._is_first, self._silence.longest = False, self._idle
            if piece:
                return piece

    def close(self) -> None:
        """Stop the timer."""
        self._silence.close()


async def finish(rest: AsyncIterator[bytes]) -> None:
    """Read the rest of the body after the last event, so that the connection can be kept."""
    size = 0
    with suppress(TimeoutError, errors.Failure):
        async with asyncio.timeout(_LONGEST_REST):
            async for piece in rest:
                size += len(piece)
                if size > _LARGEST_REST:
                    return


def stream_of(response: httpx.Response) -> httpx.AsyncByteStream:
    """Return the body of a response."""
    # All requests use the asynchronous interface, so the stream is asynchronous.
    return cast("httpx.AsyncByteStream", response.stream)


def _failure_of(error: Exception) -> errors.Failure:
    """Return the failure of a body that does not arrive."""
    if isinstance(error, TimeoutError):
        return errors.UpstreamTimeout(dispatched=True)
    failure = failure_of(error)
    if isinstance(failure, errors.UpstreamTimeout):
        return failure
    return errors.UpstreamTruncated(dispatched=True).because(cause_of(error, "truncated"))

"""The body of a response, as it arrives, within the timeouts for silence."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, closing, suppress
from typing import Final, cast

import httpx

from service import errors
from service.upstream.client_failures import CLIENT_ERRORS, cause_of, failure_of
from service.upstream.silence import Silence

_LARGEST_REST: Final = 64 * 1024
_LONGEST_REST: Final = 0.1
"""Maximum seconds and bytes after `[DONE]`; beyond them, the connection is closed, not kept."""


async def read(response: httpx.Response, limit: int, *, first: float, idle: float) -> bytes:
    """Return the body. Of a larger one, return one or more bytes beyond the limit.

    Args:
        response: The response.
        limit: Maximum bytes.
        first: As for `pieces`.
        idle: As for `pieces`.

    Raises:
        Failure: The body did not arrive.
    """
    body = bytearray()
    async with aclosing(pieces(response, first=first, idle=idle)) as each:
        async for piece in each:
            body += piece
            if len(body) > limit:
                break
    return bytes(body)


async def pieces(response: httpx.Response, *, first: float, idle: float) -> AsyncGenerator[bytes]:
    """Yield the body as it arrives, within the timeouts for silence.

    Args:
        response: The response.
        first: Maximum seconds before the first piece.
        idle: Maximum seconds before each later piece.

    Raises:
        Failure: The rest of the body does not arrive.
    """
    # All requests use the asynchronous interface, so the stream is asynchronous.
    body = aiter(cast("httpx.AsyncByteStream", response.stream))
    with closing(Silence(first)) as silence:
        while True:
            try:
                with silence:
                    piece = await anext(body)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise errors.UpstreamTimeout(dispatched=True) from error
            except CLIENT_ERRORS as error:
                failure = failure_of(error)
                if isinstance(failure, errors.UpstreamTimeout):
                    raise failure from error
                cut = errors.UpstreamTruncated(dispatched=True)
                raise cut.because(cause_of(error, "truncated")) from error
            silence.longest = idle
            yield piece


async def finish(rest: AsyncIterator[bytes]) -> None:
    """Read the rest of the body after the last event, so that the connection can be kept."""
    size = 0
    with suppress(TimeoutError, errors.Failure):
        async with asyncio.timeout(_LONGEST_REST):
            async for piece in rest:
                size += len(piece)
                if size > _LARGEST_REST:
                    return

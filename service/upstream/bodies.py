"""The body of a response, within the timeouts for silence.

read     the whole body of a unary response, or of a refusal
pieces   that of a stream, as it arrives
finish   what follows the last event of a stream
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import closing, suppress
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
        limit: The number of bytes.
        first: Maximum seconds before the first piece.
        idle: Maximum seconds before each later piece.

    Raises:
        Failure: The upstream is silent for too long, or the body breaks off.
    """
    body = _body_of(response)
    pieces = bytearray()
    with closing(Silence(first)) as silence:
        while len(pieces) <= limit and (piece := await _next(body, silence, idle)):
            pieces += piece
    return bytes(pieces)


async def pieces(response: httpx.Response, *, first: float, idle: float) -> AsyncGenerator[bytes]:
    """Yield the body as it arrives. Arguments and errors are those of `read`.

    No reference to a piece is kept: a caller who does not read would keep the piece in memory.
    """
    body = _body_of(response)
    arrived: list[bytes] = []
    with closing(Silence(first)) as silence:
        while True:
            arrived.append(await _next(body, silence, idle))
            if not arrived[0]:
                return
            yield arrived.pop()


async def finish(rest: AsyncIterator[bytes]) -> None:
    """Read the rest of the body after the last event, so that the connection can be kept."""
    size = 0
    with suppress(TimeoutError, errors.Failure):
        async with asyncio.timeout(_LONGEST_REST):
            async for piece in rest:
                size += len(piece)
                if size > _LARGEST_REST:
                    return


def _body_of(response: httpx.Response) -> AsyncIterator[bytes]:
    # All requests use the asynchronous interface, so the stream is asynchronous.
    return aiter(cast("httpx.AsyncByteStream", response.stream))


async def _next(body: AsyncIterator[bytes], silence: Silence, idle: float) -> bytes:
    """Return the next bytes of a body, or b"" at its end."""
    piece = b""
    try:
        while not piece:
            with silence:
                piece = await anext(body)
            silence.longest = idle
    except StopAsyncIteration:
        return b""
    except TimeoutError as error:
        raise errors.UpstreamTimeout(dispatched=True) from error
    except CLIENT_ERRORS as error:
        failure = failure_of(error)
        if isinstance(failure, errors.UpstreamTimeout):
            raise failure from error
        cut = errors.UpstreamTruncated(dispatched=True)
        raise cut.because(cause_of(error, "truncated")) from error
    return piece

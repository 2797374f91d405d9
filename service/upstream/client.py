"""The client of the upstreams: sends a request and returns its response.

    complete -> dispatch.open -> complete body -> ChatCompletion
    stream   -> dispatch.open -> events        -> StreamChatCompletionResponse, …
                              -> Failure

The client uses httpx's `Request` and `Response` through httpx's transport interface, which follows
no redirects, reads no environment and keeps no cookies. Any httpx transport works; the one in
`transport` uses the least CPU. The client requests responses without compression and rejects
compressed ones, so that a small response cannot become a large one.

There are four timeouts: for connecting, for the first byte of a stream, for silence within the
body, and the deadline of the call, which the interceptor enforces. It alone bounds the first byte
of a unary response. After a complete response, the connection is kept; otherwise it is closed.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing
from datetime import datetime
from typing import Final

import httpx

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion
from service import errors
from service.call import Call
from service.metering.progress import Progress
from service.models import Model, Upstream
from service.request import AcceptedRequest
from service.telemetry import Telemetry
from service.upstream import bodies, refusals
from service.upstream.chunks import (
    MOST_TOGETHER,
    ChunkReader,
    Response,
    apart,
    decoded,
    has_error,
    reported,
    together,
)
from service.upstream.client_limits import UpstreamLimits
from service.upstream.dispatch import Dispatcher
from service.upstream.rewriting import rename, restyle
from service.upstream.transport.http11 import Http11Transport
from service.upstream_dialect import KEEPALIVE

_BOM: Final = b"\xef\xbb\xbf"


def transport(*, max_connections: int, verify: bool | str = True) -> httpx.AsyncBaseTransport:
    """Return the transport to all upstreams.

    Args:
        max_connections: Maximum connections. A further request waits for the connect timeout.
        verify: The file of certificate authorities, or True for the default ones.

    Raises:
        ssl.SSLError: The file has no certificates.
    """
    context = (
        ssl.create_default_context(cafile=verify)
        if isinstance(verify, str)
        else httpx.create_ssl_context(verify=verify, trust_env=False)
    )
    return Http11Transport(context, max_connections=max_connections, keepalive=KEEPALIVE)


class UpstreamClient:
    """Sends completions to the upstreams.

    Args:
        transport: The transport of the requests.
        limits: The timeouts, the bounds and the maximum size.
        telemetry: Counts open streams, retries and closed requests.
        now: Returns the wall clock, for dates in headers.
        random: Returns a number from 0 to 1, for the jitter of retries.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        limits: UpstreamLimits,
        telemetry: Telemetry,
        *,
        now: Callable[[], datetime],
        random: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._limits = limits
        self._telemetry = telemetry
        self._dispatcher = Dispatcher(transport, limits, telemetry, now=now, random=random)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    def use(self, upstreams: Sequence[Upstream]) -> None:
        """Use these upstreams from now on, and forget what is remembered of all others."""
        self._dispatcher.upstreams.use(upstreams)

    async def complete(
        self, request: AcceptedRequest, call: Call, progress: Progress | None = None
    ) -> ChatCompletion:
        """Return the completion.

        Args:
            request: The request.
            call: The call of the request.
            progress: Learns how the upstream counts; the caller lets it count the completion.

        Raises:
            Failure: The upstream returned none.
        """
        async with self._dispatcher.open(request, call, streamed=False) as visit:
            model = visit.model
            idle = self._limits.idle_of(model)
            patience = max(call.deadline - asyncio.get_running_loop().time(), idle)
            limit = self._limits.max_response_bytes
            data = await bodies.read(visit.body, limit, first=patience, idle=idle)
            if len(data) > self._limits.max_response_bytes:
                raise errors.UpstreamInvalidResponse(dispatched=True).because("too_large")
            if progress is not None:
                progress.cached_outside = model.dialect.cached_tokens == "outside"
            return _completion(data, model, call)

    async def stream(
        self, request: AcceptedRequest, call: Call, progress: Progress, *, in_process: bool = False
    ) -> AsyncGenerator[list[Response]]:
        """Yield the responses for the caller as the chunks arrive. The receiver owns each list.

        Args:
            request: The request.
            call: The call of the request.
            progress: Counts every chunk, including those that are withheld from the caller.
            in_process: Whether to yield chunks that arrive together in one list.

        Raises:
            Failure: The stream is not complete. All chunks that arrived were yielded.
        """
        limits = self._limits
        deliver = together if in_process else apart
        self._telemetry.upstream_streams.inc()
        opening = self._dispatcher.open(request, call, streamed=True)
        del request  # an open stream does without it
        try:
            async with opening as visit:
                model = visit.model
                progress.cached_outside = model.dialect.cached_tokens == "outside"
                reader = ChunkReader(
                    model,
                    progress,
                    call.record,
                    max_event_bytes=limits.max_response_bytes,
                    trace=call.trace,
                    keeps_usage=call.gives_receipt,
                )
                with closing(
                    bodies.Pieces(
                        visit.body,
                        first=limits.first_byte_of(model),
                        idle=limits.idle_of(model),
                    )
                ) as pieces:
                    async for piece in pieces:
                        ready = reader.take(piece)
                        del piece  # a caller who does not read would keep it in memory
                        for responses in deliver(ready):
                            is_full = len(responses) >= MOST_TOGETHER
                            yield responses
                            if is_full:
                                await asyncio.sleep(0)
                        if reader.is_cut:
                            return
                        if reader.is_done:
                            await bodies.finish(pieces)
                            return
                        if visit.is_probe():
                            visit.answered(asyncio.get_running_loop().time())
                for responses in deliver(reader.finish()):
                    yield responses
        except errors.Failure:
            if progress.kept is not None:  # a failed call has its receipt in the trailers
                yield [progress.kept]
            raise
        finally:
            self._telemetry.upstream_streams.dec()


def _completion(data: bytes, model: Model, call: Call) -> ChatCompletion:
    """Return the completion in the body of a response.

    Raises:
        Failure: There is none.
    """
    try:
        data = data.removeprefix(_BOM)
        completion = decoded(openai_json.decode_completion, data, call.record)
    except openai_json.DecodeError as error:
        raise reported(data, model) or errors.UpstreamInvalidResponse(dispatched=True) from error
    if not completion.choices:
        raise (
            reported(data, model)
            or refusals.flagged_prompt(completion)
            or errors.UpstreamInvalidResponse(dispatched=True).because("no_choices")
        )
    if has_error(completion):
        raise reported(data, model) or errors.UpstreamError(dispatched=True).because("reported")
    if call.trace is not None:
        call.trace.hear(completion)
    restyle(completion, model, gives_receipt=call.gives_receipt)
    rename(completion, model)
    return completion

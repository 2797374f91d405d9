"""The client of the upstreams: sends a request and returns its response.

    complete -> outgoing -> POST -> 2xx, uncompressed -> complete body -> ChatCompletion
    stream   -> outgoing -> POST -> 2xx, uncompressed -> events -> ChatCompletionChunk, …
                                 -> anything else -> refusals, or FAILURES below; one retry if
                                                     `retries` allows it

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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, cast

import httpx

from chatcompletion import openai_json
from chatcompletion.default_messages import quoted
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
)
from service import errors
from service.call import Call
from service.metering.progress import Progress
from service.models import Model
from service.request import AcceptedRequest
from service.telemetry import Telemetry
from service.upstream import error_bodies, refusals
from service.upstream.chunks import ChunkReader, apart, decoded, has_error, reported, together
from service.upstream.client_failures import cause_of, failure_of
from service.upstream.retries import RetryBudget, delay
from service.upstream.rewriting import outgoing, rename, restyle
from service.upstream.sent_request import EVENTS, JSON, Sent, http_request, place
from service.upstream.silence import Silence
from service.upstream.surrogates import has_surrogates, unpaired
from service.upstream.transport.http11 import Http11Transport
from service.upstream_dialect import KEEPALIVE

_AFTER_DEADLINE: Final = 1.0
"""Seconds after the deadline of a call, which ends a unary one before this client does."""
_MOST_REMEMBERED: Final = 256
_LARGEST_ERROR_BODY: Final = 64 * 1024
_LARGEST_REST: Final = 64 * 1024
_LONGEST_REST: Final = 0.1
"""Maximum seconds and bytes after `[DONE]`; beyond them, the connection is closed, not kept."""
_BOM: Final = b"\xef\xbb\xbf"
_NO_CODINGS: Final = frozenset({"", "identity", "none", "utf-8", "utf8"})
"""Values of Content-Encoding that upstreams send for an uncompressed body."""
_CLIENT_ERRORS: Final = (httpx.HTTPError, OSError)


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamLimits:
    """The timeouts, in seconds, and the maximum size of a response."""

    connect: float
    first_byte: float
    idle: float
    longest_retry_after: float
    max_response_bytes: int
    busy: float = 0.5
    """Wait before the retry of a request that a busy upstream refused without a Retry-After."""


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
        limits: The timeouts and the maximum size.
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
        self._now = now
        self._random = random
        self._budget = RetryBudget()
        self._plain: set[tuple[str, str]] = set()
        """The upstreams that refused `stream_options`."""
        self._timeouts = {
            "timeout": {
                "connect": limits.connect,
                "pool": limits.connect,
                "read": None,
                "write": None,
            }
        }

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def complete(self, request: AcceptedRequest, call: Call) -> ChatCompletion:
        """Return the completion.

        Raises:
            Failure: The upstream returned none.
        """
        model = request.model
        body = await _checked(outgoing(request, streamed=False))
        if call.trace is not None:
            call.carried = call.trace.ask(request.params, model, streamed=False)
        async with self._open(Sent(body, model, call, accept=JSON)) as response:
            patience = max(call.deadline - _clock(), self._idle(model))
            limit = self._limits.max_response_bytes
            data = await self._read(response, limit, first=patience, idle=self._idle(model))
            if len(data) > self._limits.max_response_bytes:
                raise errors.UpstreamInvalidResponse(dispatched=True).because("too_large")
        try:
            data = data.removeprefix(_BOM)
            completion = decoded(openai_json.decode_completion, data, call.record)
        except openai_json.DecodeError as error:
            raise reported(data, model) or errors.UpstreamInvalidResponse(
                dispatched=True
            ) from error
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
        restyle(completion, model)
        rename(completion, model)
        return completion

    async def stream(
        self, request: AcceptedRequest, call: Call, progress: Progress, *, at_once: bool = False
    ) -> AsyncGenerator[Sequence[ChatCompletionChunk]]:
        """Yield the chunks for the caller as they arrive.

        Args:
            request: The request.
            call: The call of the request.
            progress: Counts every chunk, including those that are withheld from the caller.
            at_once: Whether to yield chunks that arrive together in one sequence.

        Raises:
            Failure: The stream is not complete. All chunks that arrived were yielded.
        """
        model = request.model
        plainly = self._asks_plainly(model)
        body = await _checked(
            outgoing(request, streamed=True, options="none" if plainly else "all")
        )
        if call.trace is not None:
            call.carried = call.trace.ask(request.params, model, streamed=True)
        sent = Sent(body, model, call, accept=EVENTS, optional=None if plainly else request)
        first = self._first_byte(model)
        reader = ChunkReader(
            model,
            progress,
            call.record,
            max_event_bytes=self._limits.max_response_bytes,
            trace=call.trace,
        )
        deliver = together if at_once else apart
        with self._telemetry.upstream_streams.track_inprogress():
            async with (
                self._open(sent) as response,
                aclosing(self._pieces(response, first=first, idle=self._idle(model))) as pieces,
            ):
                async for piece in pieces:
                    for chunks in deliver(reader.take(piece)):
                        yield chunks
                    if reader.is_cut:
                        return
                    if reader.is_done:
                        await _finish(pieces)
                        return
                for chunks in deliver(reader.finish()):
                    yield chunks

    @asynccontextmanager
    async def _open(self, sent: Sent) -> AsyncIterator[httpx.Response]:
        """Send a request, with up to one retry, and yield its successful response."""
        self._budget.earn()
        try:
            response = await self._attempt(sent)
        except errors.Failure as failure:
            response = await self._again(sent, failure)
        left = False
        try:
            yield response
        except (asyncio.CancelledError, GeneratorExit):
            left = True
            raise
        finally:
            started = _clock()
            await response.aclose()
            if left:
                self._telemetry.upstream_closed(_clock() - started)
            if sent.call.trace is not None:
                sent.call.trace.close()

    async def _again(self, sent: Sent, failure: errors.Failure) -> httpx.Response:
        """Send a request that failed once more, if that can help.

        Raises:
            Failure: It cannot, or the second request failed too.
        """
        if sent.optional is not None and failure.refuses_options:
            return await self._with_fewer_options(sent, sent.optional)
        wait = self._wait(failure, sent.call)
        if wait is None or not self._budget.spend():
            raise failure
        await asyncio.sleep(wait)
        return await self._attempt(sent, fresh=True)

    async def _with_fewer_options(self, sent: Sent, request: AcceptedRequest) -> httpx.Response:
        """Send the request of a stream again, because the upstream refused its `stream_options`.

        The first attempt leaves out the options that the caller added, if there are any. If
        `include_usage` is refused too, the second attempt has no options, which is remembered: the
        usage of all later streams of the upstream is then counted.
        """
        fewer = outgoing(request, streamed=True, options="usage")
        if fewer != sent.body:
            try:
                return await self._attempt(replace(sent, body=fewer))
            except errors.Failure as failure:
                if not failure.refuses_options:
                    raise
        plain = outgoing(request, streamed=True, options="none")
        response = await self._attempt(replace(sent, body=plain))
        if len(self._plain) >= _MOST_REMEMBERED:
            self._plain.clear()
        self._plain.add(place(sent.model))
        return response

    def _wait(self, failure: errors.Failure, call: Call) -> float | None:
        if isinstance(failure, errors.UpstreamUnavailable):
            busy = failure.report is not None and failure.report.cause == "busy"
            asked = failure.retry_after or (self._limits.busy if busy else 0.0)
        elif failure.retry_after is not None:
            asked = failure.retry_after
        elif failure.lost_idle:
            asked = 0.0
        else:
            return None
        return delay(
            asked,
            remaining=call.deadline - _clock(),
            longest=self._limits.longest_retry_after,
            random=self._random(),
        )

    async def _attempt(self, sent: Sent, *, fresh: bool = False) -> httpx.Response:
        """Send a request once and return its response, if its status is that of a success.

        Args:
            sent: The request.
            fresh: Whether to use a new connection.
        """
        call, model = sent.call, sent.model
        call.record.upstream_attempts += 1
        call.record.upstream, call.record.upstream_status = model.upstream.name, 0
        call.dispatched = True
        started = _clock()
        patience = self._first_byte(model)
        if sent.accept == JSON:  # some models think for minutes
            patience = max(call.deadline - started, 0) + _AFTER_DEADLINE
        try:
            with closing(Silence(patience)) as silence, silence:
                response = await self._transport.handle_async_request(
                    http_request(sent, self._timeouts, fresh=fresh)
                )
            call.record.upstream_status = response.status_code
        except TimeoutError as error:
            raise errors.UpstreamTimeout(dispatched=True) from error
        except _CLIENT_ERRORS as error:
            failure = failure_of(error)
            call.dispatched = failure.dispatched
            raise failure from error
        finally:
            self._telemetry.upstream_responded(call.record, _clock() - started)
        try:
            refusal = await self._refusal(response, model)
        except BaseException:
            await response.aclose()
            raise
        if refusal is None:
            return response
        await response.aclose()
        call.dispatched = refusal.dispatched
        raise refusal

    def _asks_plainly(self, model: Model) -> bool:
        """Return whether streams are requested without `stream_options`."""
        return model.dialect.stream_options == "never" or place(model) in self._plain

    def _first_byte(self, model: Model) -> float:
        own = model.dialect.first_byte_timeout
        return self._limits.first_byte if own is None else own

    def _idle(self, model: Model) -> float:
        own = model.dialect.idle_timeout
        return self._limits.idle if own is None else own

    async def _refusal(self, response: httpx.Response, model: Model) -> errors.Failure | None:
        """Return the failure in the head of a response, or None if there is none."""
        headers = response.headers
        codings = headers.get("content-encoding", "").lower().split(",")
        if not _NO_CODINGS.issuperset(coding.strip() for coding in codings):
            return errors.UpstreamInvalidResponse(dispatched=True).because("encoding")
        if response.is_success:
            return None  # the body tells what it is
        idle = self._idle(model)
        body = await self._read(response, _LARGEST_ERROR_BODY, first=idle, idle=idle)
        told = error_bodies.read(body, plain=True)
        wait = refusals.retry_after(headers, self._now())
        return refusals.failure(response.status_code, told, wait, model)

    async def _read(
        self, response: httpx.Response, limit: int, *, first: float, idle: float
    ) -> bytes:
        """Return the body. Of a larger one, return one or more bytes beyond the limit."""
        body = bytearray()
        async with aclosing(self._pieces(response, first=first, idle=idle)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > limit:
                    break
        return bytes(body)

    async def _pieces(
        self, response: httpx.Response, *, first: float, idle: float
    ) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives, within the timeouts for silence.

        Args:
            response: The response.
            first: Maximum seconds before the first piece.
            idle: Maximum seconds before each later piece.
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
                except _CLIENT_ERRORS as error:
                    failure = failure_of(error)
                    if isinstance(failure, errors.UpstreamTimeout):
                        raise failure from error
                    cut = errors.UpstreamTruncated(dispatched=True)
                    raise cut.because(cause_of(error, "truncated")) from error
                silence.longest = idle
                yield piece


async def _checked(body: bytes) -> bytes:
    """Return the body of a request, unless it has half of a surrogate pair."""
    if has_surrogates(body):
        path = await asyncio.to_thread(unpaired, body)
        if path is not None:
            at = quoted(path) if path else "parameter name"
            message = f"Invalid {at}: expected Unicode text, but got half of a surrogate pair."
            raise errors.InvalidRequest.of([errors.Violation(param=path, message=message)])
    return body


def _clock() -> float:
    return asyncio.get_running_loop().time()


async def _finish(pieces: AsyncIterator[bytes]) -> None:
    """Read the rest of the body after the last event, so that the connection can be kept."""
    size = 0
    with suppress(TimeoutError, errors.Failure):
        async with asyncio.timeout(_LONGEST_REST):
            async for piece in pieces:
                size += len(piece)
                if size > _LARGEST_REST:
                    return

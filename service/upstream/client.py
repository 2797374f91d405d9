"""The client of the upstreams: sends a request and returns its response.

    complete -> outgoing -> POST -> 2xx, uncompressed -> complete body -> ChatCompletion
    stream   -> outgoing -> POST -> 2xx, uncompressed -> events -> ChatCompletionChunk, …
                                 -> anything else -> refusals, or FAILURES below; one retry if
                                                     `retries` allows it

The client uses httpx's `Request` and `Response` through httpx's transport interface, which follows
no redirects, reads no environment and keeps no cookies. Any httpx transport works; the one in
`transport` uses the least CPU. The client requests responses without compression and rejects
compressed ones, so that a small response cannot become a large one.

There are four timeouts: for connecting, for the response headers, for silence within the body, and
the deadline of the call, which the interceptor enforces. After a complete response, the connection
is kept; otherwise it is closed.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, cast

import httpx

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
)
from process import request_id as request_ids
from service import errors
from service.call import Call
from service.metering.progress import Progress
from service.models import Model, Upstream
from service.request import AcceptedRequest
from service.telemetry import Telemetry
from service.upstream import error_bodies, refusals
from service.upstream.chunks import ChunkReader, apart, decoded, has_error, reported, together
from service.upstream.retries import RetryBudget, delay
from service.upstream.rewriting import outgoing, rename
from service.upstream.silence import Silence
from service.upstream.surrogates import has_surrogates, unpaired
from service.upstream.transport.connection import ServerDisconnected
from service.upstream.transport.http11 import Http11Transport
from service.upstream_report import Cause

FAILURES: Final[tuple[tuple[type[Exception], type[errors.Failure], bool], ...]] = (
    # The exception, its failure, and whether the upstream may have started to generate.
    (ServerDisconnected, errors.UpstreamError, True),
    (httpx.ConnectError, errors.UpstreamUnavailable, False),
    (httpx.ConnectTimeout, errors.UpstreamUnavailable, False),
    (httpx.PoolTimeout, errors.UpstreamUnavailable, False),
    (httpx.TimeoutException, errors.UpstreamTimeout, True),
    (httpx.RemoteProtocolError, errors.UpstreamInvalidResponse, True),
    (httpx.TransportError, errors.UpstreamError, True),
)
"""The failures of the HTTP client. The first matching row applies."""

_CAUSES: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Cause], ...]] = (
    ((socket.gaierror, UnicodeError), "dns"),
    (ssl.SSLError, "tls"),
    (httpx.PoolTimeout, "pool"),
    ((httpx.TimeoutException, TimeoutError), "timeout"),
    (ServerDisconnected, "closed"),
    ((httpx.ReadError, httpx.WriteError, ConnectionResetError), "reset"),
    (httpx.RemoteProtocolError, "protocol"),
)
"""The cause of each exception. The first matching row of the exception, then those of its own
cause, apply."""

KEEPALIVE: Final = 4.0
"""Seconds for which an idle connection is kept. Servers on uvicorn, such as vLLM, close theirs
after five seconds; a request sent at that moment would fail."""

_LARGEST_ERROR_BODY: Final = 64 * 1024
_LARGEST_REST: Final = 64 * 1024
_LONGEST_REST: Final = 0.1
"""Maximum seconds and bytes after `[DONE]`; beyond them, the connection is closed, not kept."""
_BOM: Final = b"\xef\xbb\xbf"
_NO_CODINGS: Final = frozenset({"", "identity", "none", "utf-8", "utf8"})
"""Values of Content-Encoding that upstreams send for an uncompressed body."""
_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_UNPAIRED: Final = "Must be valid Unicode text, but has half of a surrogate pair."
_USER_AGENT: Final = b"chatcompletion/0.1"
_REQUEST_ID: Final = request_ids.HEADER.encode()
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
        async with self._open(body, model, call, _JSON) as response:
            data = await self._read(response, self._limits.max_response_bytes)
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
        body = await _checked(outgoing(request, streamed=True))
        reader = ChunkReader(
            model, progress, call.record, max_event_bytes=self._limits.max_response_bytes
        )
        deliver = together if at_once else apart
        with self._telemetry.upstream_streams.track_inprogress():
            async with (
                self._open(body, model, call, _EVENTS) as response,
                aclosing(self._pieces(response)) as pieces,
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
    async def _open(
        self, body: bytes, model: Model, call: Call, accept: str
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, with up to one retry, and yield its successful response."""
        self._budget.earn()
        try:
            response = await self._attempt(body, model, call, accept)
        except errors.Failure as failure:
            wait = self._wait(failure, call)
            if wait is None or not self._budget.spend():
                raise
            await asyncio.sleep(wait)
            response = await self._attempt(body, model, call, accept)
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

    def _wait(self, failure: errors.Failure, call: Call) -> float | None:
        if isinstance(failure, errors.UpstreamUnavailable):
            busy = failure.report is not None and failure.report.cause == "busy"
            asked = failure.retry_after or (self._limits.busy if busy else 0.0)
        elif failure.retry_after is not None:
            asked = failure.retry_after
        else:
            return None
        return delay(
            asked,
            remaining=call.deadline - _clock(),
            longest=self._limits.longest_retry_after,
            random=self._random(),
        )

    async def _attempt(self, body: bytes, model: Model, call: Call, accept: str) -> httpx.Response:
        """Send a request once and return its response, if its status is that of a success."""
        call.record.upstream_attempts += 1
        call.record.upstream, call.record.upstream_status = model.upstream.name, 0
        call.dispatched = True
        started = _clock()
        try:
            with closing(Silence(self._limits.first_byte)) as silence, silence:
                response = await self._transport.handle_async_request(
                    _request(body, model.upstream, call, accept, self._timeouts)
                )
            call.record.upstream_status = response.status_code
        except TimeoutError as error:
            raise errors.UpstreamTimeout(dispatched=True) from error
        except _CLIENT_ERRORS as error:
            failure = _failure(error)
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

    async def _refusal(self, response: httpx.Response, model: Model) -> errors.Failure | None:
        """Return the failure in the head of a response, or None if there is none."""
        headers = response.headers
        codings = headers.get("content-encoding", "").lower().split(",")
        if not _NO_CODINGS.issuperset(coding.strip() for coding in codings):
            return errors.UpstreamInvalidResponse(dispatched=True).because("encoding")
        if response.is_success:
            return None  # the body tells what it is
        told = error_bodies.read(await self._read(response, _LARGEST_ERROR_BODY), plain=True)
        wait = refusals.retry_after(headers, self._now())
        return refusals.failure(response.status_code, told, wait, model)

    async def _read(self, response: httpx.Response, limit: int) -> bytes:
        """Return the body. Of a larger one, return one or more bytes beyond the limit."""
        body = bytearray()
        async with aclosing(self._pieces(response)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > limit:
                    break
        return bytes(body)

    async def _pieces(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives, within the timeout for silence."""
        # All requests use the asynchronous interface, so the stream is asynchronous.
        body = aiter(cast("httpx.AsyncByteStream", response.stream))
        with closing(Silence(self._limits.idle)) as silence:
            while True:
                try:
                    with silence:
                        piece = await anext(body)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise errors.UpstreamTimeout(dispatched=True) from error
                except _CLIENT_ERRORS as error:
                    failure = _failure(error)
                    if isinstance(failure, errors.UpstreamTimeout):
                        raise failure from error
                    cut = errors.UpstreamTruncated(dispatched=True)
                    raise cut.because(_cause(error, "truncated")) from error
                yield piece


async def _checked(body: bytes) -> bytes:
    """Return the body of a request, unless it has half of a surrogate pair."""
    if has_surrogates(body):
        path = await asyncio.to_thread(unpaired, body)
        if path is not None:
            raise errors.InvalidRequest.of([errors.Violation(param=path, message=_UNPAIRED)])
    return body


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _failure(error: Exception) -> errors.Failure:
    """Return the failure for an exception of the HTTP client."""
    for kind, ours, dispatched in FAILURES:
        if isinstance(error, kind):
            return ours(dispatched=dispatched).because(_cause(error, "other"))
    return errors.UpstreamError(dispatched=True).because(_cause(error, "other"))


def _cause(error: BaseException, otherwise: Cause) -> Cause:
    """Return the cause of an exception of the HTTP client."""
    link: BaseException | None = error
    while link is not None:
        for kind, cause in _CAUSES:
            if isinstance(link, kind):
                return cause
        link = link.__cause__
    return "refused" if isinstance(error, httpx.ConnectError) else otherwise


@lru_cache(maxsize=128)
def _url(base_url: str) -> httpx.URL:
    return httpx.URL(f"{base_url}/chat/completions")


def _request(
    body: bytes,
    upstream: Upstream,
    call: Call,
    accept: str,
    timeouts: Mapping[str, Mapping[str, float | None]],
) -> httpx.Request:
    url = _url(upstream.base_url)
    # With a stream as body, httpx adds no headers, which is faster.
    headers = [
        (b"host", url.netloc),
        (b"content-type", _JSON.encode()),
        (b"accept", accept.encode()),
        (b"accept-encoding", b"identity"),
        (b"user-agent", _USER_AGENT),
        (_REQUEST_ID, call.record.request_id.encode("ascii")),
    ]
    if upstream.api_key:
        key = upstream.api_key.encode(errors="surrogateescape")  # the bytes of the environment
        headers.append((b"authorization", b"Bearer " + key))
    if call.traceparent is not None:
        headers.append((b"traceparent", call.traceparent.encode("ascii")))
    headers.append((b"content-length", b"%d" % len(body)))
    request = httpx.Request(
        "POST", url, headers=headers, stream=httpx.ByteStream(body), extensions={**timeouts}
    )
    request.read()
    return request


async def _finish(pieces: AsyncIterator[bytes]) -> None:
    """Read the rest of the body after the last event, so that the connection can be kept."""
    size = 0
    with suppress(TimeoutError, errors.Failure):
        async with asyncio.timeout(_LONGEST_REST):
            async for piece in pieces:
                size += len(piece)
                if size > _LARGEST_REST:
                    return

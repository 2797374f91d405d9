"""Sends a request to an upstream and returns the head of its response, with up to one retry.

    open -> a place and the breaker's permit -> POST -> 2xx, uncompressed -> the response
         -> OVERLOADED                               -> anything else     -> refusals, or FAILURES
                                                                             of client_failures;
                                                                             one retry if `retries`
                                                                             allows it

The place is kept until the response is closed. What the end of the call says about the upstream,
the breaker counts.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Final

import httpx

from chatcompletion.default_messages import quoted
from service import errors
from service.call import Call
from service.models import Model
from service.request import AcceptedRequest
from service.telemetry import Telemetry
from service.upstream import bodies, error_bodies, refusals, retries
from service.upstream.bulkhead import NoPlaceError
from service.upstream.choosing import ranked
from service.upstream.client_failures import CLIENT_ERRORS, failure_of
from service.upstream.client_limits import UpstreamLimits
from service.upstream.rewriting import SentOptions, outgoing
from service.upstream.sent_request import EVENTS, JSON, Sent, http_request
from service.upstream.silence import Silence
from service.upstream.surrogates import has_surrogates, unpaired
from service.upstream.upstreams import Upstreams
from service.upstream.verdicts import verdict_of
from service.upstream.visit import Visit

_AFTER_DEADLINE: Final = 1.0
"""Seconds after the deadline of a call, which ends a unary one before this client does."""
_TICK: Final = 0.002
"""Seconds by which the loop's clock can lag at a deadline: uvloop's clock has milliseconds."""
_LEFT: Final = (asyncio.CancelledError, GeneratorExit)
"""The exceptions of a call whose caller left."""
_LARGEST_ERROR_BODY: Final = 64 * 1024
_NO_CODINGS: Final = frozenset({b"", b"identity", b"none", b"utf-8", b"utf8"})
"""Values of Content-Encoding that upstreams send for an uncompressed body."""


class Dispatcher:
    """Sends requests to the upstreams.

    Args:
        transport: The transport of the requests.
        limits: The timeouts and the bounds.
        telemetry: Counts retries and closed requests.
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
        self._budget = retries.RetryBudget()
        self.upstreams = Upstreams(limits.bounds, telemetry)
        """What is remembered of each upstream."""
        self._timeouts = {
            "timeout": {
                "connect": limits.connect,
                "pool": limits.connect,
                "read": None,
                "write": None,
            }
        }

    def open(self, request: AcceptedRequest, call: Call, *, streamed: bool) -> "_Opening":
        """Return a context in which there is a visit with a successful response.

        Raises:
            Failure: There is none. Raised when the context is entered.
        """
        return _Opening(self, request, call, streamed=streamed)

    async def begin(self, request: AcceptedRequest, call: Call, *, streamed: bool) -> Visit:
        """Send a request, with up to one retry, and return the visit with its response.

        Call `end` afterwards.

        Raises:
            Failure: There is no successful response.
        """
        self._budget.earn()
        ways: Sequence[Model] = (request.model,)
        if request.model.others:
            ways = self._usable_first(ranked(request.model.ways, self._random))
        visit = self._visit(ways) or await self._enter(ways, call)
        visit.has_others = len(ways) > 1
        try:
            visit.body = await self._send(visit, request, call, streamed=streamed)
        except errors.Failure as failure:
            self._leave(visit, call, failure)
            visit = await self._again(visit, ways, request, call, failure, streamed=streamed)
        except BaseException as error:
            self._leave(visit, call, error)
            raise
        return visit

    async def end(self, visit: Visit, call: Call, error: BaseException | None) -> None:
        """Close the response of a visit, and give back its place.

        Args:
            visit: The visit.
            call: Its call.
            error: The exception with which the call ends, or None.
        """
        started = _clock()
        try:
            await visit.body.aclose()
        finally:
            self._leave(visit, call, error)
        if isinstance(error, _LEFT):
            self._telemetry.upstream_closed(_clock() - started)
        if call.trace is not None:
            call.trace.close()

    def _visit(self, ways: Sequence[Model]) -> Visit | None:
        """Take a place at the first upstream that has a free one and lets the call through."""
        now = _clock()
        for way in ways:
            state = self.upstreams.of(way)
            if not state.breaker.wait(now) and state.bulkhead.take():
                return Visit(way, state, now)
        return None

    async def _enter(self, ways: Sequence[Model], call: Call) -> Visit:
        """Take a place as `_visit` does, or wait for one at the first upstream where that helps.

        Raises:
            Overloaded: All breakers are open, or as many calls as possible are there and wait.
        """
        call.record.upstream = ways[0].upstream.name
        while (visit := self._visit(ways)) is None:
            states = [(way, self.upstreams.of(way)) for way in ways]
            waits = [state.breaker.wait(_clock()) for _, state in states]
            if all(waits):
                message = _FAILING.format(quoted(ways[0].name), math.ceil(min(waits)))
                raise errors.Overloaded(message, retry_after=min(waits)).because("breaker")
            with_room = (
                (way, state)
                for (way, state), wait in zip(states, waits, strict=True)
                if not wait and state.bulkhead.has_room
            )
            way, state = next(with_room, states[waits.index(0.0)])
            try:
                await state.bulkhead.wait(self._limits.connect)
            except NoPlaceError as error:
                raise errors.Overloaded(_FULL).because("queue") from error
            if not state.breaker.wait(_clock()):
                return Visit(way, state, _clock())
            state.bulkhead.leave()  # to the next who waits, who is refused too
        return visit

    def _leave(self, visit: Visit, call: Call, error: BaseException | None) -> None:
        now = _clock()
        if error is None:
            visit.leave("served", now, call.record.account)
            return
        if isinstance(error, errors.Failure) and error.refuses_key:
            upstream = visit.model.upstream
            is_news = visit.known.keys.set_aside(visit.key, now)
            # Otherwise, the call fails, which its own log line says.
            if is_news and (visit.has_others or upstream.other_keys):
                number = upstream.keys.index(visit.key) + 1
                self._telemetry.upstreams.key_refused(upstream.name, number)
        is_late = not visit.responded and now >= call.deadline - _TICK
        verdict = verdict_of(
            error,
            unanswered=now - visit.started if is_late else 0.0,
            patience=self._limits.first_byte_of(visit.model),
        )
        visit.leave(verdict, now, call.record.account)

    async def _again(
        self,
        left: Visit,
        ways: Sequence[Model],
        request: AcceptedRequest,
        call: Call,
        failure: errors.Failure,
        *,
        streamed: bool,
    ) -> Visit:
        """Send a request that failed once more, if that can help: elsewhere, or after a wait.

        Args:
            left: The visit that failed.
            ways: The upstreams in the order of the call.
            request: The request.
            call: Its call.
            failure: The failure.
            streamed: Whether to request a stream.

        Raises:
            Failure: It cannot, or the second request failed too.
        """
        visit = None
        if retries.moves(failure) and call.deadline > _clock():
            others = [way for way in ways if way is not left.model]
            same = [left.model] if failure.refuses_key else []
            visit = self._retry_at([way for way in (*same, *others) if self._has_key(way)])
        if visit is None:
            visit = await self._later(left, call, failure)
        elif visit.model is not left.model:
            self._telemetry.upstreams.left(left.model.upstream.name)
            if call.trace is not None:
                call.carried = call.trace.ask(request.params, visit.model, streamed=streamed)
        try:
            visit.body = await self._send(visit, request, call, streamed=streamed, again=True)
        except BaseException as error:
            self._leave(visit, call, error)
            raise
        return visit

    async def _later(self, left: Visit, call: Call, failure: errors.Failure) -> Visit:
        """Take a place for a retry at the same upstream, after the wait that it needs.

        Raises:
            Failure: The same one, if there can be no retry.
        """
        wait = retries.delay(
            retries.asked(failure, self._limits.busy),
            remaining=call.deadline - _clock(),
            longest=self._limits.longest_retry_after,
            random=self._random(),
        )
        # Each lost connection has served a request, so that these retries cannot become a flood.
        if wait is None or not (failure.lost_idle or self._budget.spend()):
            raise failure
        await asyncio.sleep(wait)
        visit = self._visit(self._closed([left.model]))
        if visit is None:
            raise failure
        return visit

    def _usable_first(self, ways: Sequence[Model]) -> Sequence[Model]:
        """Return the ways whose keys are not all set aside, and then the others."""
        return sorted(ways, key=lambda way: not self._has_key(way))

    def _has_key(self, way: Model) -> bool:
        return self.upstreams.of(way).keys.usable(way.upstream.keys, _clock())

    def _retry_at(self, ways: Sequence[Model]) -> Visit | None:
        """Take a place for a retry, if there is one and the budget allows the retry."""
        visit = self._visit(self._closed(ways))
        if visit is not None and not self._budget.spend():
            visit.leave("unknown", _clock())
            return None
        return visit

    def _closed(self, ways: Sequence[Model]) -> list[Model]:
        """Return the ways whose breakers are closed: a retry is never a probe."""
        return [way for way in ways if self.upstreams.of(way).breaker.state == "closed"]

    async def _send(
        self,
        visit: Visit,
        request: AcceptedRequest,
        call: Call,
        *,
        streamed: bool,
        again: bool = False,
    ) -> httpx.AsyncByteStream:
        """Send a request and return the body of its successful response.

        If the upstream of a stream refuses `stream_options`, send it again without the options that
        the caller added, if there are any. If `include_usage` is refused too, send it without
        options, which is remembered: the usage of all later streams of the upstream is then
        counted.
        """
        if visit.model is not request.model:
            request = replace(request, model=visit.model)
        plainly = visit.known.refuses_options or visit.model.dialect.stream_options == "never"
        options: SentOptions = "none" if plainly else "all"
        body = await _checked(
            outgoing(request, streamed=True, options=options)
            if streamed
            else outgoing(request, streamed=False)
        )
        if call.trace is not None and not again:
            call.carried = call.trace.ask(request.params, visit.model, streamed=streamed)
        sent = Sent(body, visit.model, call, accept=EVENTS if streamed else JSON, key=visit.key)
        try:
            return await self._attempt(visit, sent, fresh=again)
        except errors.Failure as failure:
            if not streamed or plainly or not failure.refuses_options:
                raise
        fewer = outgoing(request, streamed=True, options="usage")
        if fewer != sent.body:
            try:
                return await self._attempt(visit, sent.with_body(fewer))
            except errors.Failure as failure:
                if not failure.refuses_options:
                    raise
        plain = outgoing(request, streamed=True, options="none")
        answer = await self._attempt(visit, sent.with_body(plain))
        visit.known.refuses_options = True
        return answer

    async def _attempt(
        self, visit: Visit, sent: Sent, *, fresh: bool = False
    ) -> httpx.AsyncByteStream:
        """Send a request once and return the body of its response, if its status is a success.

        Args:
            visit: The visit to the upstream.
            sent: The request.
            fresh: Whether to use a new connection.
        """
        call, model = sent.call, sent.model
        call.record.upstream_attempts += 1
        call.record.upstream, call.record.upstream_status = model.upstream.name, 0
        call.dispatched = True
        started = _clock()
        patience = self._limits.first_byte_of(model)
        if sent.accept == JSON:  # some models think for minutes
            patience = max(call.deadline - started, 0) + _AFTER_DEADLINE
        try:
            with closing(Silence(patience)) as silence, silence:
                response = await self._transport.handle_async_request(
                    http_request(sent, self._timeouts, fresh=fresh)
                )
            call.record.upstream_status = response.status_code
            visit.responded = True
        except TimeoutError as error:
            raise errors.UpstreamTimeout(dispatched=True) from error
        except CLIENT_ERRORS as error:
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
            return bodies.stream_of(response)
        await response.aclose()
        call.dispatched = refusal.dispatched
        raise refusal

    async def _refusal(self, response: httpx.Response, model: Model) -> errors.Failure | None:
        """Return the failure in the head of a response, or None if there is none."""
        headers = response.headers
        # Without the decoding of httpx, which looks at every header.
        codings = [value for name, value in headers.raw if name.lower() == b"content-encoding"]
        is_coded = bool(codings) and not _NO_CODINGS.issuperset(
            coding.strip() for coding in b",".join(codings).lower().split(b",")
        )
        if response.is_success and not is_coded:
            return None  # the body tells what it is
        if response.is_success:
            return errors.UpstreamInvalidResponse(dispatched=True).because("encoding")
        body = b""  # of a compressed refusal, the status has to do
        if not is_coded:
            idle = self._limits.idle_of(model)
            stream = bodies.stream_of(response)
            body = await bodies.read(stream, _LARGEST_ERROR_BODY, first=idle, idle=idle)
        told = error_bodies.read(body, plain=True)
        wait = refusals.retry_after(headers, self._now())
        return refusals.failure(response.status_code, told, wait, model)


class _Opening:
    """A visit as a context. Of the request, it keeps nothing once there is a response.

    A generator in its place would take three times the memory in each open stream.
    """

    __slots__ = ("_call", "_dispatcher", "_request", "_streamed", "_visit")

    def __init__(
        self, dispatcher: Dispatcher, request: AcceptedRequest, call: Call, *, streamed: bool
    ) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._call = call
        self._streamed = streamed
        self._visit: Visit

    async def __aenter__(self) -> Visit:
        begin = self._dispatcher.begin
        self._visit = await begin(self._request, self._call, streamed=self._streamed)
        del self._request
        return self._visit

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._dispatcher.end(self._visit, self._call, error)


_FULL: Final = (
    "The server has as many requests in progress at the model provider as it accepts. "
    "Try again shortly."
)
_FAILING: Final = "The provider of the model {} is failing at the moment. Try again in {}s."


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

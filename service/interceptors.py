"""Wraps each RPC of the contract: key, deadline, message, status.

    metadata, deadline -> Call -> key -> message -> handler -> response(s), or an exception

    Failure                  its status
    the deadline passed      DEADLINE_EXCEEDED or UPSTREAM_TIMEOUT
    the caller cancelled     CANCELLED, in logs and metrics only
    any other exception      INTERNAL; the log has its type and place, never its text

A call is counted and has a deadline as soon as its headers arrive. Its message is read only after
its key is valid and the number of calls is below the maximum, so that callers without a key cannot
fill the memory.

A handler of a stream yields lists of responses that are available together. The interceptor
writes the responses instead of yielding them to grpcio. The deadline therefore also applies to a
caller who does not read, and every call ends in one place.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Mapping,
)
from contextvars import Token
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast
from urllib.parse import quote

import grpc
from google.protobuf.message import Message
from grpc.aio import ServicerContext

from chatcompletion import charges
from chatcompletion.openai_json import TextChunk
from process import log, trace_context
from process import request_id as request_ids
from process.in_process import when_done, write_all
from process.whole_operations import to_its_end
from service import errors
from service.call import CURRENT, Call, Calls
from service.call_trace import CallTrace, method_attributes
from service.certificate_identity import identity_of
from service.load_reports import HEADER, Load
from service.request_message import forgiving, receive, too_late
from service.telemetry import CallRecord, Telemetry
from service.upstream_report import UpstreamReport

if TYPE_CHECKING:  # imported only if spans are exported
    from process.tracing import Tracing

# Quoted, because these are generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = (
    "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]"
)

CONTRACT: Final = "/chatcompletion."
"""The prefix of the contract's methods."""

IDEMPOTENCY_KEY: Final = "idempotency-key"
"""The metadata with the caller's idempotency key."""
_REPLAYED: Final = (("idempotent-replayed", "true"),)
"""The metadata that mark the answer to another call with the same idempotency key."""

UPSTREAM: Final = "x-chat-upstream"
"""The metadata with the name of the upstream that answered, in percent-encoding."""
_PLAIN: Final = "/:@+"
"""The characters, besides letters, digits and `_.-~`, that stay as they are in it."""

_OTHER_KEYS: Final = ("x-api-key", "api-key")
"""The metadata in which callers of other APIs send a key."""
_TICK: Final = 0.002
"""Seconds by which the loop's clock can lag at a deadline: uvloop's clock has milliseconds."""

# grpc.aio raises InternalError if it cannot write, because the connection is lost.
_GONE: Final = (asyncio.CancelledError, grpc.aio.InternalError)

_log = logging.getLogger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Turns each RPC of the contract into a `Call`, and each exception into a status.

    Args:
        calls: The set of calls in flight.
        telemetry: Records the begin and the end of every call.
        authenticate: Raises the failure of a call without a valid key.
        longest: Maximum duration of a call, in seconds.
        clock: A monotonic clock in seconds, finer than the event loop's, for durations.
        shows_upstream: Whether responses name the upstream that answered.
        propagators: The trace headers that are carried on, as in OTEL_PROPAGATORS.
        tracing: Creates spans; None if none are exported.
        load: Measures the load, which the ends of calls report; None to report none.
    """

    def __init__(
        self,
        calls: Calls,
        telemetry: Telemetry,
        *,
        authenticate: Callable[[Call], Awaitable[object]],
        longest: float,
        clock: Callable[[], float],
        propagators: Collection[str] = trace_context.PROPAGATORS,
        tracing: Tracing | None = None,
        load: Load | None = None,
        shows_upstream: bool = False,
    ) -> None:
        self._shows_upstream = shows_upstream
        self._load = load
        self._tracing = tracing
        self._full_names: dict[str, str] = {}
        self._clock = clock
        self._propagators = propagators
        self._calls = calls
        self._telemetry = telemetry
        self._authenticate = authenticate
        self._longest = longest
        self._handlers: dict[str, _Handler] = {}

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """Return the handler of a method, wrapped if the method belongs to the contract."""
        method = handler_call_details.method
        if not method.startswith(CONTRACT):
            return await continuation(handler_call_details)
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            name = method.rpartition("/")[2]
            self._full_names[name] = method.removeprefix("/")
            self._handlers[method] = self._wrap(name, handler)
        return self._handlers[method]

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        deserialize = forgiving(handler.request_deserializer)
        serialize = cast("Any", handler.response_serializer)
        if handler.response_streaming:
            # `write_all` serializes the responses; without a serializer, they are bytes.
            serialize = _or_text_chunk(serialize or cast("Any", _as_is))
            return grpc.stream_stream_rpc_method_handler(
                self._serving(method, cast("Any", handler.unary_stream), serialize),
                request_deserializer=deserialize,
            )
        return grpc.stream_unary_rpc_method_handler(
            self._serving(method, cast("Any", handler.unary_unary), None),
            request_deserializer=deserialize,
            response_serializer=serialize,
        )

    def _serving(
        self,
        method: str,
        handler: Callable[[Any, _Context], Any],
        serialize: Callable[[Any], bytes] | None,
    ) -> Callable[[object, _Context], Awaitable[Any]]:
        """Return the wrapped handler of a method.

        It is one function for both kinds of methods, because each coroutine, generator or context
        manager that is left out saves memory in every open stream.

        Args:
            method: The name of the method.
            handler: A coroutine function, or for a stream a generator of lists of responses.
            serialize: Serializes the responses of a stream; None for a unary method.
        """

        async def serve(_: object, context: _Context) -> Any:
            call, token = self._arrive(method, context)
            try:
                async with asyncio.timeout_at(call.deadline):
                    await self._calls.enter()
                    await self._authenticate(call)
                    # The handler owns the request: a stream does without it while it waits.
                    answer = handler(await self._receive(call, context), context)
                    response = None
                    if serialize is None:
                        response = await answer
                        await self._look_at_limits(call)
                        await self._begin_response(call, context)
                    else:
                        try:
                            async for responses in answer:
                                if not call.begun:
                                    await self._begin_response(call, context)
                                await write_all(context, responses, serialize)
                        finally:
                            await answer.aclose()
                    if cost := self._cost_of(call):
                        context.set_trailing_metadata(cast("Any", cost))
                    await self._calls.leave()
                    return response
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (_fail raises again)
                await self._fail(error, call, context)
            finally:
                self._depart(call, token)

        return serve

    async def _receive(self, call: Call, context: _Context) -> Any:
        call.receiving = True
        request = await receive(context)
        call.receiving = False
        if isinstance(request, Message):
            self._calls.hold_bytes(call, request.ByteSize())
        return request

    @staticmethod
    async def _look_at_limits(call: Call) -> None:
        """Read the state of the limits for a call whose hold did not report it."""
        if call.limits is not None and not call.rate_limit:
            call.rate_limit = await call.limits()

    def _cost_of(self, call: Call) -> tuple[tuple[str, bytes], ...]:
        """Return the trailing metadata with the charge of a call and the load of the process."""
        charge = () if call.charge is None else charges.metadata(call.charge)
        if self._load is None or call.caller is None:
            return charge
        return (*charge, (HEADER, self._load.report(call.record).SerializeToString()))

    async def _begin_response(self, call: Call, context: _Context) -> None:
        """Send the initial metadata, after which clients and proxies do not retry the call."""
        call.begun = True
        metadata = cast("Any", self._initial_metadata(call))
        await to_its_end(context.send_initial_metadata(metadata))

    def _initial_metadata(self, call: Call) -> tuple[tuple[str, str], ...]:
        elapsed = self._clock() - call.record.started
        return (
            (request_ids.HEADER, call.record.request_id),
            ("openai-processing-ms", str(round(elapsed * 1000))),
            *call.rate_limit,
            *self._upstream_of(call),
            *(_REPLAYED if call.is_replayed else ()),
        )

    def _upstream_of(self, call: Call) -> tuple[tuple[str, str], ...]:
        """Return the metadata with the upstream that answered, if it is shown."""
        if not (self._shows_upstream and call.record.upstream_status):
            return ()
        return ((UPSTREAM, quote(call.record.upstream, safe=_PLAIN)),)

    def _arrive(self, method: str, context: _Context) -> tuple[Call, Token[Call]]:
        """Count a call that begins. Return it, and what `_depart` needs."""
        call = self._begin(method, context)
        token = CURRENT.set(call)
        self._calls.add(call)
        # The caller must read until the end can be sent.
        when_done(context, lambda _: self._calls.discard(call))
        self._telemetry.begin(call.record)
        if self._load is not None:
            self._load.begin()
        return call, token

    def _depart(self, call: Call, token: Token[Call]) -> None:
        """Record the end of a call."""
        self._calls.end(call)
        self._telemetry.end(call.record, self._clock())
        if call.trace is not None:
            call.trace.end(call.record)
        if self._load is not None:
            self._load.end(call.record)
        # The task's context has the call, which has the task: otherwise, only a garbage collection
        # would free them.
        CURRENT.reset(token)

    def _begin(self, method: str, context: _Context) -> Call:
        metadata = _single_values(context)
        now = asyncio.get_running_loop().time()
        remaining = context.time_remaining()
        callers = remaining is not None and remaining < self._longest
        carried = trace_context.carried(metadata, self._propagators)
        call = Call(
            record=CallRecord(
                method=method,
                request_id=request_ids.accept(metadata.get(request_ids.HEADER)),
                started=self._clock(),
                trace_id=trace_context.trace_of(carried),
            ),
            authorization=metadata.get("authorization"),
            peer=context.peer,
            identity=partial(identity_of, context),
            other_key=next((name for name in _OTHER_KEYS if name in metadata), ""),
            idempotency_key=metadata.get(IDEMPOTENCY_KEY),
            carried=carried,
            deadline=now + (remaining if callers else self._longest),
            deadline_is_callers=callers,
            task=cast("asyncio.Task[object]", asyncio.current_task()),
        )
        if self._tracing is not None:
            self._trace(call, self._tracing)
        return call

    def _trace(self, call: Call, tracing: Tracing) -> None:
        """Begin the span of a call."""
        name = self._full_names[call.record.method]
        call.trace = CallTrace(tracing.server(name, call.carried, method_attributes(name)))
        call.record.trace_id, call.record.span_id = call.trace.trace_id, call.trace.span_id

    async def _fail(self, error: BaseException, call: Call, context: _Context) -> NoReturn:
        failure = self._failure(error, call, context)
        call.failing = True
        call.record.reason = failure.reason
        if isinstance(failure, errors.InvalidRequest):
            call.record.violations = tuple(v.param for v in failure.violations)
            settings = (v.setting for v in failure.violations if v.setting)
            call.record.settings = tuple(dict.fromkeys(settings))
        call.record.upstream_report = failure.report
        if failure.report is None and failure.default_cause is not None:
            call.record.upstream_report = UpstreamReport(cause=failure.default_cause)
        if context.done() or isinstance(failure, errors.Cancelled):
            # The caller is gone. gRPC would log any other exception.
            try:
                raise error if isinstance(error, asyncio.CancelledError) else asyncio.CancelledError
            finally:
                # The traceback has this frame: with the frame's own reference, it is a cycle.
                del error, failure
        if isinstance(failure, errors.InvalidApiKey):
            call.limits = None  # a revoked key has none
        if failure.rule.http_status < HTTPStatus.INTERNAL_SERVER_ERROR:
            # While the service is overloaded or its store is away, do not read the limits as well.
            await self._look_at_limits(call)
        status = errors.status(failure, call.record.request_id)
        cost = self._cost_of(call)
        trailers = (
            *(*status.trailing_metadata, *call.rate_limit, *cost),
            *(*self._upstream_of(call), *(_REPLAYED if call.is_replayed else ())),
        )
        try:
            if (failure.dispatched or call.dispatched) and not call.begun:
                # Proxies retry a call that ends with UNAVAILABLE in a Trailers-Only response; the
                # upstream would generate twice.
                await self._begin_response(call, context)
            self._calls.end(call)  # sending the status can wait for a caller who does not read
            await to_its_end(context.abort(status.code, status.details, trailers))
        except grpc.aio.InternalError:
            # The connection is lost and the caller is gone, as above.
            raise asyncio.CancelledError from None
        raise AssertionError("abort raises")

    def _failure(self, error: BaseException, call: Call, context: _Context) -> errors.Failure:
        if isinstance(error, errors.Failure):
            return error
        if isinstance(error, asyncio.CancelledError) and call.draining:
            call.task.uncancel()
            return errors.Draining(dispatched=call.dispatched)
        if call.deadline_is_callers and asyncio.get_running_loop().time() >= call.deadline - _TICK:
            return errors.DeadlineExceeded(dispatched=call.dispatched)
        if isinstance(error, _GONE) or context.done():
            return errors.Cancelled()
        if isinstance(error, TimeoutError):
            upstreams = errors.UpstreamTimeout(dispatched=call.dispatched)
            return too_late() if call.receiving else upstreams
        record = call.record
        members = {"request_id": record.request_id, "method": record.method}
        if record.trace_id:
            members["trace_id"] = record.trace_id
        _log.error("unexpected exception", exc_info=error, extra=log.fields(**members))
        return errors.Internal(
            f"{errors.Internal.default_message} Request id: {call.record.request_id}",
            dispatched=call.dispatched,
        )


def _as_is(response: object) -> object:
    return response


def _or_text_chunk(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Return a serializer that also takes a `TextChunk`, which serializes itself."""
    return lambda each: each.serialize() if isinstance(each, TextChunk) else serialize(each)


def _single_values(context: _Context) -> Mapping[str, str]:
    """Return the text metadata. A repeated key counts as absent.

    A repeated idempotency key counts as an empty one, which is refused: without it, the call could
    be paid twice.
    """
    values: dict[str, str] = {}
    twice: set[str] = set()
    for key, value in context.invocation_metadata() or ():
        if key in values:
            twice.add(key)
        if isinstance(value, str):
            values[key] = value
    if IDEMPOTENCY_KEY in twice:
        values[IDEMPOTENCY_KEY] = ""
        twice.discard(IDEMPOTENCY_KEY)
    return {key: value for key, value in values.items() if key not in twice}

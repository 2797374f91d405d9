"""Around each RPC of the contract: who calls, until when, and how it ended.

    metadata, deadline ──► Call ──► key ──► message ──► handler ──► response(s), or an exception
                                                                         │
                                              Failure ─► its status ◄────┤
                                         the clock ran out ─► a Failure ◄┤
                              the caller left ─► reason CANCELLED only ◄─┤
                    anything else ─► INTERNAL; type and place to the log, the text to nobody

A call is counted and has its clock from its headers on. Its message is read only if its key is
valid and there is room for it, so that callers without a key cannot fill the memory.

Handlers of streams yield the responses that are there at a time, in a sequence. They are written
here rather than yielded to grpcio: so the clock covers a caller who does not
read, and every ending passes this one place.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, NoReturn, TypeAlias, TypeVar, cast

import grpc
from grpc.aio import Metadata, ServicerContext

from process import log
from process import request_id as request_ids
from process.in_process import write_all
from service import errors
from service.call import CURRENT, Call, Calls
from service.receiving import forgiving, receive, too_late
from service.telemetry import CallRecord, Telemetry

_Response = TypeVar("_Response")
# Quoted, since these are generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = (
    "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]"
)

CONTRACT: Final = "/chatcompletion."
"""How the methods of the contract begin."""

_LONGEST_TRACEPARENT: Final = 128
_TICK: Final = 0.002
"""Seconds by which the loop's clock may lag when a deadline comes: uvloop counts milliseconds."""

# grpc's own is of a message or its metadata that could not be written: the connection is lost.
_GONE: Final = (asyncio.CancelledError, grpc.aio.InternalError)

_log = logging.getLogger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Turns each RPC of the contract into a `Call`, and each exception into a status.

    Args:
        calls: The set of calls in flight.
        telemetry: Told of every call that begins and ends.
        authenticate: Raises the failure of a call whose caller may not call at all.
        longest: The longest a call takes, in seconds.
        clock: A monotonic clock in seconds, finer than the event loop's, for what is measured.
    """

    def __init__(
        self,
        calls: Calls,
        telemetry: Telemetry,
        *,
        authenticate: Callable[[Call], Awaitable[object]],
        longest: float,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._calls = calls
        self._telemetry = telemetry
        self._authenticate = authenticate
        self._longest = longest
        self._handlers: dict[str, _Handler] = {}

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """Return the handler of a method, wrapped once if it is of the contract."""
        method = handler_call_details.method
        if not method.startswith(CONTRACT):
            return await continuation(handler_call_details)
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = self._wrap(method.rpartition("/")[2], handler)
        return self._handlers[method]

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        codecs = {
            "request_deserializer": forgiving(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streamed(method, cast("Any", handler.unary_stream)), **codecs
            )
        return grpc.stream_unary_rpc_method_handler(
            self._unary(method, cast("Any", handler.unary_unary)), **codecs
        )

    def _unary(
        self, method: str, handler: Callable[[Any, _Context], Awaitable[_Response]]
    ) -> Callable[[object, _Context], Awaitable[_Response]]:
        async def serve(_: object, context: _Context) -> _Response:
            async with self._call(method, context) as call:
                request = await self._receive(call, context)
                response = await handler(request, context)
                await self._look_at_limits(call)
                await self._begin_response(call, context)
                return response

        return serve

    def _streamed(
        self, method: str, handler: Callable[[Any, _Context], AsyncGenerator[Sequence[_Response]]]
    ) -> Callable[[object, _Context], Awaitable[None]]:
        async def serve(_: object, context: _Context) -> None:
            async with self._call(method, context) as call:
                request = await self._receive(call, context)
                async with aclosing(handler(request, context)) as stream:
                    async for responses in stream:
                        if not call.begun:
                            await self._begin_response(call, context)
                        await write_all(context, responses)

        return serve

    @staticmethod
    async def _receive(call: Call, context: _Context) -> Any:
        call.receiving = True
        request = await receive(context)
        call.receiving = False
        return request

    @staticmethod
    async def _look_at_limits(call: Call) -> None:
        """Have the call know how much is left, where no hold has said so."""
        if call.limits is not None and not call.rate_limit:
            call.rate_limit = await call.limits()

    async def _begin_response(self, call: Call, context: _Context) -> None:
        """Send the initial metadata, which commits clients and proxies to this response."""
        call.begun = True
        await context.send_initial_metadata(self._initial_metadata(call))

    def _initial_metadata(self, call: Call) -> Metadata:
        elapsed = self._clock() - call.record.started
        return Metadata(
            (request_ids.HEADER, call.record.request_id),
            ("openai-processing-ms", str(round(elapsed * 1000))),
            *call.rate_limit,
        )

    @asynccontextmanager
    async def _call(self, method: str, context: _Context) -> AsyncIterator[Call]:
        call = self._begin(method, context)
        CURRENT.set(call)
        self._calls.add(call)
        # grpc has sent its end then, which takes a caller who reads.
        context.add_done_callback(cast("Any", lambda _: self._calls.discard(call)))
        self._telemetry.begin(call.record)
        try:
            async with asyncio.timeout_at(call.deadline):
                await self._calls.enter()
                await self._authenticate(call)
                yield call
                await self._calls.leave()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (_fail raises again)
            await self._fail(error, call, context)
        finally:
            self._calls.end(call)
            self._telemetry.end(call.record, self._clock())

    def _begin(self, method: str, context: _Context) -> Call:
        metadata = _single_values(context)
        now = asyncio.get_running_loop().time()
        remaining = context.time_remaining()
        callers = remaining is not None and remaining < self._longest
        traceparent = metadata.get("traceparent")
        if traceparent is not None and len(traceparent) > _LONGEST_TRACEPARENT:
            traceparent = None
        return Call(
            record=CallRecord(
                method=method,
                request_id=request_ids.accept(metadata.get(request_ids.HEADER)),
                started=self._clock(),
            ),
            authorization=metadata.get("authorization"),
            traceparent=traceparent,
            deadline=now + (remaining if callers else self._longest),
            deadline_is_callers=callers,
            task=cast("asyncio.Task[object]", asyncio.current_task()),
        )

    async def _fail(self, error: BaseException, call: Call, context: _Context) -> NoReturn:
        failure = self._failure(error, call, context)
        call.failing = True
        call.record.reason = failure.reason
        if isinstance(failure, errors.InvalidRequest):
            call.record.violations = tuple(v.param for v in failure.violations)
            settings = (v.setting for v in failure.violations if v.setting)
            call.record.settings = tuple(dict.fromkeys(settings))
        if isinstance(failure, errors.UpstreamAccount):
            call.record.upstream = failure.upstream
            call.record.upstream_status = failure.status
            call.record.upstream_names = failure.names
        if context.done() or isinstance(failure, errors.Cancelled):
            # Nobody is left to be told; grpc would log any other exception.
            raise error if isinstance(error, asyncio.CancelledError) else asyncio.CancelledError
        if isinstance(failure, errors.InvalidApiKey):
            call.limits = None  # a key that is valid no more is told what a stranger's is told
        if failure.rule.http_status < HTTPStatus.INTERNAL_SERVER_ERROR:
            # Where the service is in trouble no call asks it for more than it was told.
            await self._look_at_limits(call)
        status = errors.status(failure, call.record.request_id)
        trailers = (*status.trailing_metadata, *call.rate_limit)
        try:
            if (failure.dispatched or call.dispatched) and not call.begun:
                # A proxy sends a call again if it was UNAVAILABLE and the status came alone
                # (Trailers-Only); the upstream would work twice.
                await self._begin_response(call, context)
            self._calls.end(call)  # a caller who does not read holds this up
            await context.abort(status.code, status.details, trailers)
        except grpc.aio.InternalError:
            # The connection was lost: nobody is left to be told, as above.
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
        members = log.fields(request_id=call.record.request_id, method=call.record.method)
        _log.error("unforeseen exception", exc_info=error, extra=members)
        return errors.Internal(
            f"{errors.Internal.default_message} Request id: {call.record.request_id}",
            dispatched=call.dispatched,
        )


def _single_values(context: _Context) -> Mapping[str, str]:
    """Return the text metadata; what is given twice counts as absent."""
    values: dict[str, str] = {}
    twice: set[str] = set()
    for key, value in context.invocation_metadata() or ():
        if key in values:
            twice.add(key)
        if isinstance(value, str):
            values[key] = value
    return {key: value for key, value in values.items() if key not in twice}

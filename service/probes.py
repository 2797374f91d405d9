"""Limits on calls that need no key: health and reflection.

    Check, and any other unary call   at most MOST_CHECKS at a time, LONGEST seconds
    Watch                             at most MOST_WATCHES at a time, any duration, and
                                      MOST_WATCHES_OF_CONNECTION for each connection
    reflection                        at most MOST_REFLECTIONS at a time, LONGEST seconds

These limits are separate from the limit of calls: health checks work when the service has its
maximum of calls, and probes do not take the place of calls. A further reflection call ends with
OVERLOADED. A further Watch ends the oldest Watch of the connection with the most Watches, or itself
if that is its own connection. A further Check always ends such a Check: a normal Check ends within
a moment, so that the oldest ones are those that hang, and they do not block others.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, cast

import grpc
from grpc.aio import ServicerContext

from process import request_id as request_ids
from process.in_process import InProcessContext, when_done
from process.whole_operations import to_its_end
from service import errors
from service.probe_bounds import ProbeBound
from service.request_message import LONGEST, forgiving, receive

MOST_CHECKS: Final = 200
MOST_WATCHES: Final = 1000
MOST_WATCHES_OF_CONNECTION: Final = 100
MOST_REFLECTIONS: Final = 100

# grpc.aio raises InternalError if it cannot write, because the connection is lost.
_ENDINGS: Final = (asyncio.CancelledError, grpc.aio.InternalError)

# Quoted, because these are generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = (
    "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]"
)
_Serve: TypeAlias = Callable[[Any, _Context], Awaitable[Any]]


class ProbeInterceptor(grpc.aio.ServerInterceptor):
    """Limits the calls of services outside the contract.

    Args:
        contract: The prefix of the contract's methods, which are not limited here.
    """

    def __init__(self, contract: str) -> None:
        self._contract = contract
        self._checks = ProbeBound(MOST_CHECKS, yields="always")
        self._watches = ProbeBound(
            MOST_WATCHES,
            most_of_one=MOST_WATCHES_OF_CONNECTION,
            yields="to other connections",
        )
        self._reflections = ProbeBound(MOST_REFLECTIONS, yields="never")
        self._handlers: dict[str, _Handler] = {}

    @property
    def running(self) -> int:
        """The number of these calls in flight."""
        # Not __len__, because gRPC ignores an interceptor that is false.
        return sum(len(bound) for bound in (self._checks, self._watches, self._reflections))

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """Return the handler of a method, wrapped unless the method belongs to the contract."""
        method = handler_call_details.method
        if method.startswith(self._contract):
            return await continuation(handler_call_details)
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = self._wrap(handler)
        return self._handlers[method]

    def end(self) -> None:
        """End these calls with DRAINING, and reject further ones."""
        for bound in (self._checks, self._watches, self._reflections):
            bound.end()

    def _wrap(self, handler: _Handler) -> _Handler:
        codecs = {
            "request_deserializer": forgiving(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._conversation(cast("Any", handler.stream_stream)), **codecs
            )
        serve = (
            self._watch(cast("Any", handler.unary_stream))
            if handler.response_streaming
            else self._check(cast("Any", handler.unary_unary))
        )
        return grpc.stream_stream_rpc_method_handler(serve, **codecs)

    def _check(self, handler: _Serve) -> _Serve:
        async def serve(_: object, context: _Context) -> Any:
            async with self._bounded(self._checks, context, LONGEST):
                response = await handler(await receive(context), context)
                if isinstance(context, InProcessContext):
                    return response
                # gRPC would not run this write to its end, which a stranger can prevent.
                return await to_its_end(context.write(response))

        return serve

    def _watch(self, handler: _Serve) -> _Serve:
        async def serve(_: object, context: _Context) -> None:
            async with self._bounded(self._watches, context, None):
                await handler(await receive(context), context)

        return serve

    def _conversation(self, handler: Callable[[Any, _Context], AsyncIterator[Any]]) -> _Serve:
        async def serve(_: object, context: _Context) -> None:
            async with self._bounded(self._reflections, context, LONGEST):
                async for response in handler(_messages(context), context):
                    await to_its_end(context.write(response))

        return serve

    @asynccontextmanager
    async def _bounded(
        self, bound: ProbeBound, context: _Context, longest: float | None
    ) -> AsyncIterator[None]:
        """Run a call within a limit, and turn an exception into its status."""
        # The call counts until gRPC has sent its end, for which the caller must read.
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        bound.add(task, context.peer())
        when_done(context, lambda _: bound.discard(task))
        try:
            bound.check(task)
            async with asyncio.timeout(longest):
                yield
        except (*_ENDINGS, errors.Failure, TimeoutError) as error:
            await _fail(error, bound, context)


async def _fail(error: BaseException, bound: ProbeBound, context: _Context) -> None:
    if context.done() or isinstance(error, grpc.aio.InternalError):
        raise asyncio.CancelledError  # the caller is gone; gRPC would log any other exception
    failure: errors.Failure
    if isinstance(error, errors.Failure):
        failure = error
    elif isinstance(error, TimeoutError):
        failure = errors.DeadlineExceeded()
    else:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        why = bound.why(task)
        if why is None:
            raise error
        task.uncancel()
        failure = why
    status = errors.status(failure, request_ids.accept(None))
    try:
        await to_its_end(context.abort(status.code, status.details, status.trailing_metadata))
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


async def _messages(context: _Context) -> AsyncIterator[Any]:
    while (request := await to_its_end(context.read(), is_read=True)) is not grpc.aio.EOF:
        if request is None:
            raise errors.InvalidRequest("The request is not a message of this method.")
        yield request

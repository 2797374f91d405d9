"""A channel to a server in the same process: no socket, and nothing is serialised.

    stub ─► InProcessChannel ─► interceptors ─► handler          all in the caller's own task
      ▲                                            │
      └─ the response, the messages, AioRpcError ◄─┘

A call means what it means on the wire: the metadata, the deadline, the status with its details and
trailing metadata, and back-pressure, since a handler that writes waits until the message is taken.
Two things are simpler. The deadline has one owner, the handler: the channel only passes it on. And
the call is its caller's task: cancelling the one cancels the other.

A message belongs to who receives it. The channel serves handlers that read their request from the
context, as the interceptors of the service make them, and nothing of a call that grpc does without
a handler: no compression, no limits on sizes, no connectivity.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
from grpc.aio import AioRpcError, Metadata

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Serve: TypeAlias = Callable[[None, "InProcessContext"], Awaitable[Any]]
_Take: TypeAlias = Callable[[Sequence[Any]], Awaitable[None]]
_T = TypeVar("_T")

MetadataPairs: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Keys and values, as a caller gives them."""


@dataclass(frozen=True, slots=True)
class _CallDetails:
    """What interceptors are told of a call."""

    method: str
    invocation_metadata: MetadataPairs = ()


class InProcessChannel:
    """Calls the methods of a server, as the stubs do through `grpc.aio.Channel`.

    Args:
        interceptors: The server's, the first one outermost.
        handlers: The server's methods, by path; may still grow until the first call of a method.
    """

    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        handlers: Mapping[str, _Handler],
    ) -> None:
        self._interceptors = interceptors
        self._handlers = handlers

    def unary_unary(self, method: str, *_: Any, **__: Any) -> _Method:
        """Return a method that answers one message with one."""
        return _Method(partial(self._find, method), UnaryCall)

    def unary_stream(self, method: str, *_: Any, **__: Any) -> _Method:
        """Return a method that answers one message with several."""
        return _Method(partial(self._find, method), StreamCall)

    async def close(self, grace: float | None = None) -> None:
        """Do nothing: there is no connection, and calls end with their callers."""

    async def _find(self, method: str) -> _Serve:
        handler = await self._intercepted(0, cast("Any", _CallDetails(method)))
        if handler is None:
            raise AioRpcError(
                grpc.StatusCode.UNIMPLEMENTED, Metadata(), Metadata(), "Method not found!"
            )
        serve = handler.stream_stream if handler.response_streaming else handler.stream_unary
        return cast("_Serve", serve)

    async def _intercepted(
        self, position: int, details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        if position == len(self._interceptors):
            return self._handlers.get(details.method)
        return await self._interceptors[position].intercept_service(
            cast("Any", partial(self._intercepted, position + 1)), details
        )


class _Method:
    """One method of a stub; it looks for its handler at its first call.

    Args:
        find: Returns the handler.
        call: Makes a call of it.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[_Serve]],
        call: Callable[[_Method, InProcessContext], Any],
    ) -> None:
        self._find = find
        self._call = call
        self._serve: _Serve | None = None

    def __call__(
        self,
        request: object,
        *,
        timeout: float | None = None,
        metadata: MetadataPairs | None = None,
    ) -> Any:
        """Make a call; it begins when it is awaited.

        Args:
            request: The message.
            timeout: Seconds from now until its deadline; None is none.
            metadata: What is told beside the message.
        """
        return self._call(self, InProcessContext(request, metadata or (), timeout))

    async def serve(self, context: InProcessContext) -> Any:
        """Have the handler serve a call, to its end."""
        if self._serve is None:
            self._serve = await self._find()
        try:
            return await self._serve(None, context)
        finally:
            context.end()


class InProcessContext:
    """A call, as its handler sees it: what of `grpc.aio.ServicerContext` makes sense here."""

    __slots__ = ("_deadline", "_done", "_loop", "_metadata", "_request", "initial_metadata", "take")

    def __init__(self, request: object, metadata: MetadataPairs, timeout: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._metadata = metadata
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._done: list[Callable[[Any], None]] | None = []
        self.initial_metadata = Metadata()
        """What the handler sent before its response."""
        self.take: _Take | None = None
        """Takes the messages of a stream."""

    async def read(self) -> Any:
        """Return the message of the call the first time, and then `grpc.aio.EOF`."""
        request, self._request = self._request, grpc.aio.EOF
        return request

    async def write(self, message: object) -> None:
        """Give a message to the caller; return when it is taken."""
        await self.write_all((message,))

    async def write_all(self, messages: Sequence[object]) -> None:
        """Give messages to the caller that are there at the same time."""
        if self.take is None:
            raise TypeError("the method answers with one message")
        await self.take(messages)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Tell the caller what comes before the response."""
        self.initial_metadata = metadata

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: MetadataPairs = (),
    ) -> NoReturn:
        """End the call with a status, which is raised."""
        raise AioRpcError(code, self.initial_metadata, Metadata(*trailing_metadata), details)

    def invocation_metadata(self) -> MetadataPairs:
        """Return what the caller told beside the message."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Return how many seconds are left until the deadline, or None where there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def done(self) -> bool:
        """Return whether the call is over."""
        return self._done is None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back when the call is over."""
        if self._done is None:
            callback(self)
        else:
            self._done.append(callback)

    def end(self) -> None:
        """Take note that the call is over."""
        callbacks, self._done = self._done or (), None
        for callback in callbacks:
            callback(self)


class _Call:
    """What both kinds of calls can be asked."""

    __slots__ = ("_context", "_method")

    def __init__(self, method: _Method, context: InProcessContext) -> None:
        self._method = method
        self._context = context

    async def initial_metadata(self) -> Metadata:
        """Return what the handler sent before its response, as far as it is there."""
        return self._context.initial_metadata

    def cancel(self) -> bool:
        """Do nothing: the call ends with the task that awaits it."""
        return False


class UnaryCall(_Call):
    """A call whose response is one message: `await` it, once."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the response; raise `AioRpcError` where the call fails."""
        return self._method.serve(self._context).__await__()


class StreamCall(_Call):
    """A call whose response is a stream of messages: see `each`."""

    __slots__ = ()

    async def deliver(self, take: _Take) -> None:
        """Run the call, and have its messages taken.

        Raises:
            AioRpcError: the call failed.
        """
        self._context.take = take
        await self._method.serve(self._context)


async def each(call: AsyncIterable[_T], take: Callable[[Sequence[_T]], Awaitable[None]]) -> None:
    """Have the messages of a streaming call taken as they come, in this process or on the wire.

    Args:
        call: The call.
        take: Awaited for all messages that are there; the next ones come when it returns.

    Raises:
        AioRpcError: the call failed.
    """
    if isinstance(call, StreamCall):
        await call.deliver(take)
    else:
        async for message in call:
            await take((message,))


async def write_all(context: Any, messages: Sequence[object]) -> None:
    """Write messages that are there at the same time, in this process or on the wire."""
    if isinstance(context, InProcessContext):
        await context.write_all(messages)
    else:
        for message in messages:
            await context.write(message)

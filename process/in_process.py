"""A gRPC channel to a server in the same process, without a socket and without serialization.

    stub -> InProcessChannel -> interceptors -> handler          all in the caller's task
    stub <- response or messages, or AioRpcError <- handler

Metadata, deadline, cancellation, status details, trailing metadata and back-pressure work as on the
wire: a handler's write returns when the caller has taken the message. Two things are simpler: the
channel only passes the deadline on, and the handler enforces it; and the call runs in its caller's
task, so that cancelling the task cancels the call.

The receiver of a message owns it and can change it. Handlers must read their request from the
context, as the service's interceptors make them. The channel has no compression, no limits on
message sizes and no connectivity states.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar, cast

import grpc
from grpc.aio import AioRpcError, Metadata
from grpc.aio._call import Call

from process.whole_operations import to_its_end

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Serve: TypeAlias = Callable[[None, "InProcessContext"], Awaitable[Any]]
_Take: TypeAlias = Callable[[Sequence[Any]], Awaitable[None]]
_T = TypeVar("_T")

MetadataPairs: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Metadata: pairs of key and value."""


@dataclass(frozen=True, slots=True)
class _CallDetails:
    """The call details that interceptors receive."""

    method: str
    invocation_metadata: MetadataPairs = ()


class InProcessChannel:
    """A channel for stubs, in place of a `grpc.aio.Channel`.

    Args:
        interceptors: The server's interceptors, the outermost first.
        handlers: The server's methods by path. Can be extended until a method is first called.
    """

    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        handlers: Mapping[str, _Handler],
    ) -> None:
        self._interceptors = interceptors
        self._handlers = handlers

    def unary_unary(self, method: str, *_: Any, **__: Any) -> _Method:
        """Return a unary method."""
        return _Method(partial(self._find, method), UnaryCall)

    def unary_stream(self, method: str, *_: Any, **__: Any) -> _Method:
        """Return a server-streaming method."""
        return _Method(partial(self._find, method), StreamCall)

    async def close(self, grace: float | None = None) -> None:
        """Do nothing: there is no connection, and each call ends with its caller's task."""

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
    """One method of a stub. It finds its handler when it is first called.

    Args:
        find: Returns the handler.
        call: Creates the call object for the handler's response.
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
        """Create a call, which starts when it is awaited.

        Args:
            request: The request message.
            timeout: Seconds until the deadline, or None for no deadline.
            metadata: The metadata of the call.
        """
        return self._call(self, InProcessContext(request, metadata or (), timeout))

    async def serve(self, context: InProcessContext) -> Any:
        """Run the handler of a call until it ends."""
        if self._serve is None:
            self._serve = await self._find()
        try:
            return await self._serve(None, context)
        finally:
            context.end()


class InProcessContext:
    """A call as its handler sees it: the methods of `grpc.aio.ServicerContext` that apply here."""

    __slots__ = (
        *("_deadline", "_done", "_loop", "_metadata", "_request"),
        *("initial_metadata", "take", "trailing_metadata"),
    )

    def __init__(self, request: object, metadata: MetadataPairs, timeout: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._metadata = metadata
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._done: list[Callable[[Any], None]] | None = []
        self.initial_metadata: MetadataPairs = ()
        """The initial metadata that the handler sent."""
        self.trailing_metadata: MetadataPairs = ()
        """The trailing metadata of a call that succeeds."""
        self.take: _Take | None = None
        """Receives the messages of a stream."""

    async def read(self) -> Any:
        """Return the request message, then `grpc.aio.EOF` on further calls."""
        request, self._request = self._request, grpc.aio.EOF
        return request

    async def write(self, message: object) -> None:
        """Send a message to the caller and wait until the caller has taken it."""
        await self.write_all((message,))

    def write_all(self, messages: Sequence[object]) -> Awaitable[None]:
        """Send several messages to the caller at once and wait until it has taken them.

        Here and below, a function that only passes on an awaitable is no coroutine: each coroutine
        that waits is resumed for each message, and takes memory in each open stream.
        """
        if self.take is None:
            raise TypeError("the method answers with one message")
        return self.take(messages)

    async def send_initial_metadata(self, metadata: MetadataPairs) -> None:
        """Send the initial metadata to the caller."""
        self.initial_metadata = metadata

    def set_trailing_metadata(self, trailing_metadata: MetadataPairs) -> None:
        """Set the metadata that the caller gets when the call succeeds."""
        self.trailing_metadata = trailing_metadata

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: MetadataPairs = (),
    ) -> NoReturn:
        """Raise an `AioRpcError` that ends the call with this status."""
        initial = Metadata(*self.initial_metadata)
        raise AioRpcError(code, initial, Metadata(*trailing_metadata), details)

    def invocation_metadata(self) -> MetadataPairs:
        """Return the caller's metadata."""
        return self._metadata

    def peer(self) -> str:
        """Return the name of the caller's connection, which all of these calls share."""
        return "in-process"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return the properties of the connection: none, because there is no certificate."""
        return {}

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, or None if there is no deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def done(self) -> bool:
        """Return whether the call is over."""
        return self._done is None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Add a function to call when the call ends."""
        if self._done is None:
            callback(self)
        else:
            self._done.append(callback)

    def end(self) -> None:
        """Mark the call as ended and run its callbacks."""
        self.take = None  # which has the call, and the call this context
        callbacks, self._done = self._done or (), None
        for callback in callbacks:
            callback(self)


class _Call:
    """The methods of both kinds of calls."""

    __slots__ = ("_context", "_method")

    def __init__(self, method: _Method, context: InProcessContext) -> None:
        self._method = method
        self._context = context

    async def initial_metadata(self) -> MetadataPairs:
        """Return the initial metadata that the handler has sent so far."""
        return self._context.initial_metadata

    async def trailing_metadata(self) -> MetadataPairs:
        """Return the trailing metadata of a call that succeeded."""
        return self._context.trailing_metadata

    def cancel(self) -> bool:
        """Do nothing: the call ends when the task that awaits it is cancelled."""
        return False


class UnaryCall(_Call):
    """A unary call. Await it once."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the response, or raise `AioRpcError` if the call fails."""
        return self._method.serve(self._context).__await__()


class StreamCall(_Call):
    """A server-streaming call. `each` runs it."""

    __slots__ = ()

    def deliver(self, take: _Take) -> Coroutine[Any, Any, None]:
        """Run the call and pass its messages to `take`.

        Raises:
            AioRpcError: The call failed.
        """
        self._context.take = take
        return self._method.serve(self._context)


async def answer_of(call: grpc.aio.UnaryUnaryCall[Any, _T] | UnaryCall) -> _T:
    """Return the response of a unary call, in-process or on the wire.

    Raises:
        AioRpcError: The call failed.
    """
    if isinstance(call, UnaryCall):
        return cast("_T", await call)
    answer = to_its_end(call.__await__())
    try:
        return await answer
    finally:
        # The method of the class itself would stop the operation in Python instead of in the core.
        Call.cancel(cast("Any", call))  # does nothing after its end


class Readable(Protocol):
    """The method of a streaming call on the wire that `each` uses."""

    async def read(self) -> object:
        """Return the next message, or `grpc.aio.EOF` at the end. Raise if the call failed."""


def each(call: Readable | StreamCall, take: _Take) -> Coroutine[Any, Any, None]:
    """Pass the messages of a streaming call to `take` as they arrive, in-process or on the wire.

    Args:
        call: The call.
        take: Receives all messages that have arrived. It is awaited before the next messages.

    Raises:
        AioRpcError: The call failed.
    """
    return call.deliver(take) if isinstance(call, StreamCall) else _each_of(call, take)


async def _each_of(call: Readable, take: _Take) -> None:
    # An iteration over the call would keep each message until the next one.
    while (message := await to_its_end(call.read(), is_read=True)) is not grpc.aio.EOF:
        taking = take((message,))
        del message  # it belongs to `take`, which can wait
        await taking


def when_done(context: Any, callback: Callable[[Any], None]) -> None:
    """Call a function, with one argument, once the end of this task's call was sent or it failed.

    On the wire, that is the end of the task. gRPC's own `add_done_callback` would make a cycle of
    the call and its context, with all that gRPC's core has for the call.

    Args:
        context: The call's context.
        callback: The function.
    """
    if isinstance(context, InProcessContext):
        context.add_done_callback(callback)
    else:
        cast("asyncio.Task[Any]", asyncio.current_task()).add_done_callback(callback)


def write_all(
    context: Any, messages: list[_T], serialize: Callable[[_T], bytes]
) -> Awaitable[None]:
    """Write several messages at once, in-process or on the wire.

    A write to the wire can wait for a caller who does not read. Meanwhile, only the bytes of its
    message are kept.

    Args:
        context: The call's context. On the wire, its method has no serializer.
        messages: The messages. On the wire, they are removed as they are written.
        serialize: Serializes a message for the wire.
    """
    if isinstance(context, InProcessContext):
        return context.write_all(messages)
    return _write_each(context, messages, serialize)


async def _write_each(context: Any, messages: list[_T], serialize: Callable[[_T], bytes]) -> None:
    messages.reverse()
    while messages:
        await to_its_end(context.write(serialize(messages.pop())))

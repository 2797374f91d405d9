"""The in-process channel, without a service: what callers and handlers see of each other."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine, Generator, Sequence
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from process.in_process import (
    InProcessChannel,
    InProcessContext,
    answer_of,
    each,
    when_done,
    write_all,
)

UNARY = "/a.Service/Unary"
STREAM = "/a.Service/Stream"


def channel(unary: Any = None, stream: Any = None, interceptors: Sequence[Any] = ()) -> Any:
    """Return a channel to a service of two methods."""
    handlers: dict[str, Any] = {
        UNARY: grpc.stream_unary_rpc_method_handler(unary),
        STREAM: grpc.stream_stream_rpc_method_handler(stream),
    }
    return InProcessChannel(interceptors, handlers)


async def collect(call: Any) -> list[list[object]]:
    """Return the messages of a call, with a list for messages that arrived together."""
    taken: list[list[object]] = []

    async def take(messages: Sequence[object]) -> None:
        taken.append(list(messages))

    await each(call, take)
    return taken


async def echo(_: object, context: Any) -> object:
    request = await context.read()
    assert await context.read() is grpc.aio.EOF
    return request


async def refuse(_: object, context: Any) -> None:
    await context.send_initial_metadata(Metadata(("x-request-id", "1")))
    await context.abort(grpc.StatusCode.UNAVAILABLE, "later", (("x-wait", "2"),))


async def test_the_response_is_the_handlers_object() -> None:
    request = object()

    assert await channel(echo).unary_unary(UNARY)(request) is request


async def test_metadata_and_deadline_arrive() -> None:
    seen: dict[str, Any] = {}

    async def look(_: object, context: Any) -> str:
        seen["metadata"] = context.invocation_metadata()
        seen["remaining"] = context.time_remaining()
        return ""

    method = channel(look).unary_unary(UNARY)
    await method(0, metadata=(("a", "b"),), timeout=30.0)
    assert seen["metadata"] == (("a", "b"),)
    assert 29 < seen["remaining"] <= 30
    await method(0)
    assert seen == {"metadata": (), "remaining": None}
    await method(0, timeout=-1.0)
    assert seen["remaining"] == 0


async def test_initial_metadata_comes_back() -> None:
    async def answer(_: object, context: Any) -> str:
        await context.send_initial_metadata(Metadata(("x-request-id", "1")))
        return "answer"

    call = channel(answer).unary_unary(UNARY)(0)

    assert await call == "answer"
    assert list(await call.initial_metadata()) == [("x-request-id", "1")]


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_abort_is_the_error_of_a_channel(streamed: bool) -> None:
    made = channel(refuse, refuse)
    call = made.unary_stream(STREAM)(0) if streamed else made.unary_unary(UNARY)(0)

    with pytest.raises(AioRpcError) as raised:
        await (collect(call) if streamed else call)

    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == "later"
    assert list(raised.value.initial_metadata()) == [("x-request-id", "1")]
    assert list(raised.value.trailing_metadata()) == [("x-wait", "2")]


async def test_messages_that_are_there_together_are_taken_together() -> None:
    async def several(_: object, context: Any) -> None:
        await context.write(1)
        await write_all(context, [2, 3], lambda number: b"%d" % number)

    assert await collect(channel(stream=several).unary_stream(STREAM)(0)) == [[1], [2, 3]]


async def test_a_stream_that_ended_is_freed_without_a_garbage_collection() -> None:
    class Events:
        """What a caller's function has, as well as the call."""

    async def one(_: object, context: Any) -> None:
        await context.write(1)

    def begin() -> tuple[Coroutine[Any, Any, None], "weakref.ref[Events]"]:
        events, call = Events(), channel(stream=one).unary_stream(STREAM)(0)

        async def take(_: Sequence[object]) -> None:
            assert events is not call

        return each(call, take), weakref.ref(events)

    gc.disable()
    try:
        running, events = begin()
        await running
        del running
        assert events() is None
    finally:
        gc.enable()


async def test_on_the_wire_only_the_bytes_of_a_message_wait_for_the_caller() -> None:
    messages = ["a", "b"]
    left: list[tuple[object, list[str]]] = []

    class Context:
        async def write(self, message: object) -> None:
            left.append((message, messages[:]))

    await write_all(Context(), messages, str.encode)

    assert left == [(b"a", ["b"]), (b"b", [])]


async def test_on_the_wire_a_write_ends_although_its_caller_left() -> None:
    core: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    freed = asyncio.Event()

    class Context:
        async def write(self, message: object) -> None:
            await core
            freed.set()

    async def serve() -> None:
        await write_all(Context(), ["a"], str.encode)

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    core.set_result(None)
    async with asyncio.timeout(5):
        await freed.wait()


async def test_on_the_wire_a_read_ends_although_its_caller_left() -> None:
    core: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    freed = asyncio.Event()

    class Call:
        async def read(self) -> object:
            await core
            freed.set()
            return grpc.aio.EOF

    async def take(_: Sequence[object]) -> None:
        raise AssertionError("there is no message")

    task = asyncio.create_task(each(Call(), take))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    core.set_exception(LookupError())
    async with asyncio.timeout(5):
        await freed.wait()


class Unary:
    """A unary call on the wire, which gRPC's core ends when it is cancelled."""

    def __init__(self) -> None:
        self.core: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.freed = False

    def __await__(self) -> Generator[Any, None, str]:
        answer = yield from self.core
        self.freed = True
        return answer

    def _cancel(self, details: str) -> bool:
        if not self.core.done():
            self.core.set_result(details)
        return True


async def test_on_the_wire_a_unary_call_ends_although_its_caller_left() -> None:
    call: Any = Unary()
    task = asyncio.create_task(answer_of(call))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert call.core.result() == "Locally cancelled by application!"
    assert call.freed


async def test_on_the_wire_the_answer_of_a_unary_call_is_returned() -> None:
    call: Any = Unary()
    call.core.set_result("answer")
    assert await answer_of(call) == "answer"


async def test_on_the_wire_a_call_is_done_when_its_task_is() -> None:
    done = asyncio.Event()

    async def serve() -> None:
        when_done(object(), lambda _: done.set())

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    await task
    async with asyncio.timeout(5):
        await done.wait()


async def test_a_message_belongs_to_its_receiver_alone() -> None:
    class Message:
        pass

    class Call:
        def __init__(self) -> None:
            self.messages = [Message()]
            self.known = [weakref.ref(self.messages[0])]

        async def read(self) -> object:
            return self.messages.pop() if self.messages else grpc.aio.EOF

    call = Call()

    async def take(messages: Sequence[object]) -> None:
        del messages
        assert call.known[0]() is None

    await each(call, take)


async def test_a_handler_waits_until_its_message_is_taken() -> None:
    order: list[str] = []
    read = asyncio.Event()

    async def several(_: object, context: Any) -> None:
        for number in range(2):
            await context.write(number)
            order.append(f"written {number}")

    async def take(messages: Sequence[object]) -> None:
        order.append(f"arrived {messages[0]}")
        await read.wait()

    task = asyncio.create_task(each(channel(stream=several).unary_stream(STREAM)(0), take))
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["arrived 0"]
    read.set()
    await task
    assert order == ["arrived 0", "written 0", "arrived 1", "written 1"]


async def test_who_cancels_the_caller_cancels_the_handler() -> None:
    ended = asyncio.Event()

    async def wait(_: object, context: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def call() -> None:
        await channel(wait).unary_unary(UNARY)(0)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_is_done_when_its_handler_is(fails: bool) -> None:
    seen: list[object] = []

    async def answer(_: object, context: InProcessContext) -> str:
        context.add_done_callback(seen.append)
        assert not context.done()
        if fails:
            await context.abort(grpc.StatusCode.INTERNAL)
        return ""

    try:
        await channel(answer).unary_unary(UNARY)(0)
    except AioRpcError:
        assert fails
    (context,) = seen
    assert isinstance(context, InProcessContext)
    assert context.done()
    context.add_done_callback(seen.append)
    assert seen == [context, context]


class Interceptor(grpc.aio.ServerInterceptor):
    """Records the calls of handlers."""

    def __init__(self, name: str, order: list[str]) -> None:
        self._name = name
        self._order = order

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None

        async def serve(requests: object, context: Any) -> Any:
            self._order.append(f"{self._name} {handler_call_details.method}")
            return await handler.stream_unary(requests, context)

        return grpc.stream_unary_rpc_method_handler(serve)


async def test_interceptors_stand_before_the_handler_in_their_order() -> None:
    order: list[str] = []
    around = [Interceptor("outer", order), Interceptor("inner", order)]
    method = channel(echo, interceptors=around).unary_unary(UNARY)

    assert [await method(1), await method(2)] == [1, 2]
    assert order == [f"outer {UNARY}", f"inner {UNARY}"] * 2


async def test_an_unknown_method_is_unimplemented() -> None:
    with pytest.raises(AioRpcError) as raised:
        await channel(echo).unary_unary("/a.Service/Nothing")(0)

    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_messages_of_a_call_on_the_wire_are_taken_one_by_one() -> None:
    class Call:
        def __init__(self) -> None:
            self.messages = iter([0, 1, 2, grpc.aio.EOF])

        async def read(self) -> object:
            return next(self.messages)

    assert await collect(Call()) == [[0], [1], [2]]


async def test_the_methods_of_a_unary_call_cannot_stream() -> None:
    async def write(_: object, context: Any) -> None:
        await context.write(1)

    with pytest.raises(TypeError):
        await channel(write).unary_unary(UNARY)(0)

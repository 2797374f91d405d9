import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import uvloop
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2

from chatcompletion import charges
from chatcompletion.v1 import error_pb2
from chatcompletion.v1.chat_completion_service_pb2 import Charge
from service import errors
from service.call import CURRENT, Call, Calls
from service.interceptors import CallInterceptor
from service.telemetry import Telemetry
from service.upstream_report import UpstreamReport
from tests.support.samples import CALLER_KEY, Abort, FakeContext, details

FAILURES = [kind for kind in errors.Failure.__subclasses__() if kind is not errors.Cancelled]

Lines = Callable[[], list[dict[str, Any]]]
Serve = Callable[[Any, Any], Coroutine[Any, Any, Any]]

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = object()
STRANGER = "Bearer sk-of-nobody"
UNARY = "/chatcompletion.v1.ChatCompletionService/CreateChatCompletion"
STREAM = "/chatcompletion.v1.ChatCompletionService/StreamChatCompletion"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class House:
    """An interceptor with its calls, telemetry and clock."""

    def __init__(self, *, most: int = 10, longest: float = 60.0) -> None:
        self.calls = Calls(most)
        self.telemetry = Telemetry()
        self.clock = Clock()
        self.interceptor = CallInterceptor(
            self.calls,
            self.telemetry,
            authenticate=self.authenticate,
            longest=longest,
            clock=self.clock,
        )

    async def authenticate(self, call: Call) -> None:
        if call.authorization == STRANGER:
            raise errors.InvalidApiKey

    async def wrap(self, handler: Any, method: str) -> Any:
        async def continuation(_: grpc.HandlerCallDetails) -> Any:
            return handler

        call_details: Any = SimpleNamespace(method=method, invocation_metadata=())
        return await self.interceptor.intercept_service(continuation, call_details)

    async def unary(self, behavior: Serve) -> Serve:
        wrapped = await self.wrap(grpc.unary_unary_rpc_method_handler(behavior), UNARY)
        return _serve(wrapped.stream_unary)

    async def streamed(self, behavior: Callable[[Any, Any], AsyncGenerator[Any]]) -> Serve:
        wrapped = await self.wrap(grpc.unary_stream_rpc_method_handler(behavior), STREAM)
        return _serve(wrapped.stream_stream)

    async def fail(
        self, error: BaseException, context: FakeContext | None = None
    ) -> tuple[errors.Status, dict[Any, Any]]:
        """Run a call that raises and return its status and the details in it."""

        async def behavior(request: Any, context: Any) -> Any:
            raise error

        context = context or FakeContext()
        with pytest.raises(Abort):
            await (await self.unary(behavior))(REQUEST, context)
        assert context.aborted is not None
        return context.aborted, details(context.aborted)

    def ended(self, reason: str, method: str = "CreateChatCompletion") -> bool:
        """Whether one call ended with a reason and none runs."""
        labels = {
            "rpc_method": method,
            "gen_ai_request_model": "unknown",
            "error_type": reason,
        }
        value = self.telemetry.registry.get_sample_value
        return (
            len(self.calls) == 0
            and value("chat_calls_in_flight", {"rpc_method": method}) == 0
            and value("gen_ai_server_request_duration_seconds_count", labels) == 1
        )


def _serve(handler: Serve) -> Serve:
    """Return the function that serves a call with one message, as gRPC calls it."""

    async def serve(request: Any, context: Any) -> Any:
        context.requests = [request]
        return await _in_a_task(handler(None, context))

    return serve


async def _in_a_task(serving: Any) -> Any:
    """Run a call in a task of its own, as gRPC does, until the task has ended."""
    task = asyncio.create_task(serving)
    try:
        return await task
    finally:
        del task, serving  # an exception has this frame
        await asyncio.sleep(0)  # the callbacks of the task


async def answer(request: Any, context: Any) -> Any:
    return "answer"


async def wait(request: Any, context: Any) -> Any:
    await asyncio.Event().wait()


# -------------------------------------------------------------------------------------- success


async def test_a_response_passes_with_its_metadata() -> None:
    house = House()

    async def behavior(request: Any, context: Any) -> Any:
        house.clock.now += 1.2345
        return f"answer to {request}"

    context = FakeContext(metadata=(("x-request-id", "mine-1"),))

    assert await (await house.unary(behavior))("question", context) == "answer to question"
    assert context.initial == {"x-request-id": "mine-1", "openai-processing-ms": "1234"}
    assert house.ended("")


@pytest.mark.parametrize("leaves", [False, True])
def test_a_call_that_ended_is_freed_without_a_garbage_collection(leaves: bool) -> None:
    served: list[weakref.ref[asyncio.Task[object]]] = []

    async def behavior(request: Any, context: Any) -> Any:
        served.append(weakref.ref(CURRENT.get().task))
        begun.set()
        await (wait if leaves else answer)(request, context)

    begun = asyncio.Event()

    async def main() -> bool:
        serve = await House().unary(behavior)
        task = asyncio.create_task(serve("question", FakeContext()))
        async with asyncio.timeout(5):
            await begun.wait()
        if leaves:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        del task
        await asyncio.sleep(0)
        return served[0]() is None

    gc.disable()
    try:
        # asyncio's own loop keeps timers that were cancelled, and what they have.
        assert uvloop.run(main())
    finally:
        gc.enable()


CHARGE = Charge(hold_id="h", amount_nano_credits=3)


async def test_the_receipt_of_a_call_is_in_its_trailing_metadata() -> None:
    async def unary(request: Any, context: Any) -> Any:
        CURRENT.get().charge = CHARGE
        return "answer"

    async def streamed(request: Any, context: Any) -> AsyncGenerator[Any]:
        yield ["answer"]
        CURRENT.get().charge = CHARGE

    house = House()
    first, second = FakeContext(), FakeContext()
    await (await house.unary(unary))("question", first)
    await (await house.streamed(streamed))("question", second)

    for context in (first, second):
        assert context.trailing == dict(charges.metadata(CHARGE))


async def test_a_failed_call_has_a_receipt_too() -> None:
    async def unary(request: Any, context: Any) -> Any:
        CURRENT.get().charge = CHARGE
        raise errors.UpstreamError

    context = FakeContext()
    with pytest.raises(Abort):
        await (await House().unary(unary))("question", context)

    assert context.aborted is not None
    trailers = context.aborted.trailing_metadata
    assert charges.of(trailers) == CHARGE


async def test_responses_are_written_in_order_after_the_metadata() -> None:
    house = House()

    async def behavior(request: Any, context: Any) -> AsyncGenerator[Any]:
        for item in request:
            yield [item]

    context = FakeContext()
    assert await (await house.streamed(behavior))([1, 2, 3], context) is None
    assert context.written == [1, 2, 3]
    assert context.initial is not None
    assert house.ended("", "StreamChatCompletion")


@pytest.mark.parametrize("sent", ["a b", "", "x" * 129, "a\r\nb", "é", "\x00"])
async def test_a_request_id_that_is_not_sane_is_replaced(sent: str) -> None:
    context = FakeContext(metadata=(("x-request-id", sent),))
    await (await House().unary(answer))(REQUEST, context)

    assert context.initial is not None
    assert context.initial["x-request-id"].startswith("req_")


async def test_every_call_has_a_request_id_of_its_own() -> None:
    serve = await House().unary(answer)
    contexts = [FakeContext() for _ in range(3)]
    for context in contexts:
        await serve(REQUEST, context)

    assert len({(context.initial or {})["x-request-id"] for context in contexts}) == 3


async def seen(context: FakeContext, **house: Any) -> Call:
    """Return the call that a handler sees."""
    calls: list[Call] = []

    async def behavior(request: Any, context: Any) -> Any:
        calls.append(CURRENT.get())

    await (await House(**house).unary(behavior))(REQUEST, context)
    return calls[0]


async def test_the_handler_sees_who_calls() -> None:
    call = await seen(
        FakeContext(metadata=(("authorization", f"Bearer {CALLER_KEY}"), ("traceparent", PARENT)))
    )

    assert call.authorization == f"Bearer {CALLER_KEY}"
    assert call.carried == (("traceparent", PARENT),)
    assert call.record.trace_id == PARENT[3:35]
    assert call.record.method == "CreateChatCompletion"
    assert call.task.done()


async def test_what_is_given_twice_counts_as_absent() -> None:
    call = await seen(
        FakeContext(
            metadata=(
                *(("authorization", "Bearer a"), ("authorization", "Bearer b")),
                *(("traceparent", PARENT), ("traceparent", PARENT), ("traceparent", PARENT)),
            )
        )
    )

    assert (call.authorization, call.carried) == (None, ())


async def test_an_idempotency_key_that_is_given_twice_counts_as_an_empty_one() -> None:
    twice = (("idempotency-key", "a"), ("idempotency-key", "b"))

    assert (await seen(FakeContext(metadata=twice))).idempotency_key == ""
    assert (await seen(FakeContext(metadata=twice[:1]))).idempotency_key == "a"
    assert (await seen(FakeContext(metadata=()))).idempotency_key is None


async def test_binary_and_very_long_metadata_count_as_absent() -> None:
    call = await seen(
        FakeContext(metadata=(("authorization", b"Bearer a"), ("traceparent", "0" * 129)))
    )

    assert (call.authorization, call.carried) == (None, ())


@pytest.mark.parametrize(
    ("remaining", "due_in", "is_callers"), [(None, 60, False), (5.0, 5, True), (600.0, 60, False)]
)
async def test_the_deadline_is_the_sooner_one(
    remaining: float | None, due_in: float, is_callers: bool
) -> None:
    now = asyncio.get_running_loop().time()
    call = await seen(FakeContext(remaining=remaining), longest=60.0)

    assert call.deadline - now == pytest.approx(due_in, abs=1)
    assert call.deadline_is_callers is is_callers


# ------------------------------------------------------------------------------- which methods


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/other.chatcompletion./X"])
async def test_other_services_are_left_alone(method: str) -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)

    assert await House().wrap(handler, method) is handler


async def test_an_unknown_method_stays_unknown() -> None:
    house = House()

    assert await house.wrap(None, "/chatcompletion.v1.ChatCompletionService/Nope") is None
    assert await house.wrap(None, "/chatcompletion.v1.ChatCompletionService/Nope") is None


async def test_a_method_is_wrapped_once_and_keeps_its_codecs() -> None:
    house = House()
    handler: Any = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=bytes.decode,
        response_serializer=str.encode,
    )
    wrapped = await house.wrap(handler, UNARY)

    assert await house.wrap(handler, UNARY) is wrapped
    assert wrapped.request_deserializer(b"as before") == "as before"
    assert wrapped.response_serializer is handler.response_serializer


# ------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("dispatched", [True, False])
async def test_after_the_callers_deadline_no_proxy_sends_a_call_again_that_cost_something(
    dispatched: bool,
) -> None:
    async def behavior(request: Any, context: Any) -> Any:
        CURRENT.get().dispatched = dispatched
        await asyncio.Event().wait()

    context = FakeContext(remaining=0.01)
    with pytest.raises(Abort):
        await (await House().unary(behavior))(REQUEST, context)

    assert context.aborted is not None
    assert context.aborted.code is grpc.StatusCode.DEADLINE_EXCEEDED
    pushback = dict(context.aborted.trailing_metadata).get("grpc-retry-pushback-ms")
    assert pushback == ("-1" if dispatched else None)


async def test_a_failure_becomes_its_status() -> None:
    house = House()
    context = FakeContext(metadata=(("x-request-id", "mine-1"),))
    status, found = await house.fail(errors.UpstreamTimeout(dispatched=True), context)

    assert status.code is grpc.StatusCode.INTERNAL
    assert found[error_details_pb2.ErrorInfo].reason == "UPSTREAM_TIMEOUT"
    assert dict(status.trailing_metadata)["x-request-id"] == "mine-1"
    assert house.ended("UPSTREAM_TIMEOUT")


@pytest.mark.parametrize("kind", FAILURES)
async def test_only_what_the_upstream_may_have_worked_for_has_metadata_before_its_status(
    kind: type[errors.Failure],
) -> None:
    before, after = FakeContext(), FakeContext(metadata=(("x-request-id", "mine-1"),))
    await House().fail(kind(), before)
    await House().fail(kind(dispatched=True), after)

    assert before.initial is None
    assert after.initial == {"x-request-id": "mine-1", "openai-processing-ms": "0"}


async def test_the_metadata_before_the_status_tell_the_limits_too() -> None:
    async def behavior(request: Any, context: Any) -> Any:
        CURRENT.get().rate_limit = (("x-ratelimit-limit-requests", "60"),)
        CURRENT.get().dispatched = True
        raise Unforeseen

    context = FakeContext()
    with pytest.raises(Abort):
        await (await House().unary(behavior))(REQUEST, context)

    assert context.initial is not None
    assert context.initial["x-ratelimit-limit-requests"] == "60"
    assert context.aborted is not None
    assert dict(context.aborted.trailing_metadata)["x-ratelimit-limit-requests"] == "60"


@pytest.mark.parametrize(
    ("kind", "told"), [(errors.InvalidApiKey, False), (errors.ModelNotFound, True)]
)
async def test_a_key_that_is_valid_no_more_is_told_no_limits(
    kind: type[errors.Failure], told: bool
) -> None:
    async def limits() -> tuple[tuple[str, str], ...]:
        return (("x-ratelimit-limit-requests", "60"),)

    async def behavior(request: Any, context: Any) -> Any:
        CURRENT.get().limits = limits
        raise kind

    context = FakeContext()
    with pytest.raises(Abort):
        await (await House().unary(behavior))(REQUEST, context)

    assert context.aborted is not None
    assert ("x-ratelimit-limit-requests" in dict(context.aborted.trailing_metadata)) is told


async def test_a_failure_in_a_stream_comes_after_what_was_written() -> None:
    house = House()
    closed = []

    async def behavior(request: Any, context: Any) -> AsyncGenerator[Any]:
        try:
            yield [1]
            raise errors.UpstreamTruncated(dispatched=True)
        finally:
            closed.append(True)

    context = FakeContext()
    with pytest.raises(Abort):
        await (await house.streamed(behavior))(REQUEST, context)

    assert context.written == [1]
    assert context.aborted is not None
    assert house.ended("UPSTREAM_TRUNCATED", "StreamChatCompletion")
    assert closed


async def test_the_paths_of_violations_are_logged_and_not_their_values(lines: Lines) -> None:
    violations = [errors.Violation(param="n", message="m"), errors.Violation(param="x", message="")]
    await House().fail(errors.InvalidRequest.of(violations))

    assert lines()[0]["violations"] == ["n", "x"]
    assert "settings" not in lines()[0]


async def test_the_settings_that_would_allow_a_call_are_logged_once_and_not_told(
    lines: Lines,
) -> None:
    settings = ("models.m.allowed_members", "models.m.allowed_tools", "models.m.allowed_members")
    violations = [errors.Violation(param="x", message="m", setting=name) for name in settings]
    told = await House().fail(errors.InvalidRequest.of(violations))

    assert lines()[0]["settings"] == ["models.m.allowed_members", "models.m.allowed_tools"]
    assert "allowed" not in repr(told)


async def test_who_refused_our_account_is_logged_and_not_told(lines: Lines) -> None:
    failure = errors.UpstreamAccount()
    failure.report = UpstreamReport(cause="account", names=("code-canary",), model="model-canary")
    status, found = await House().fail(failure)

    assert "canary" not in repr((status, found))
    (line,) = lines()
    assert (line["level"], line["cause"]) == ("error", "account")
    assert (line["upstream_names"], line["upstream_model"]) == (["code-canary"], "model-canary")


async def test_a_failure_of_the_upstream_has_a_cause_without_a_report(lines: Lines) -> None:
    await House().fail(errors.UpstreamTimeout(dispatched=True))

    (line,) = lines()
    assert (line["level"], line["cause"]) == ("warning", "timeout")


class Unforeseen(Exception):  # noqa: N818  (it is what it is)
    pass


@pytest.mark.parametrize("error", [Unforeseen("text-canary"), KeyError("text-canary")])
async def test_the_text_of_an_unforeseen_exception_leaves_nowhere(
    error: Exception, lines: Lines
) -> None:
    house = House()
    status, found = await house.fail(error, FakeContext(metadata=(("x-request-id", "mine-1"),)))

    assert status.code is grpc.StatusCode.INTERNAL
    assert status.details == (
        "The server had an error while processing the request. Request id: mine-1"
    )
    assert found[error_pb2.ErrorDetail].http_status == 500
    assert "canary" not in repr(status)
    unforeseen, call = lines()
    assert (unforeseen["event"], unforeseen["exception"]) == (
        "unexpected exception",
        type(error).__name__,
    )
    assert unforeseen["request_id"] == call["request_id"] == "mine-1"
    assert unforeseen["places"][-1].startswith("test_interceptors.py:")
    assert "canary" not in repr(lines())
    assert house.ended("INTERNAL")


async def test_a_call_too_many_is_told_so_and_does_not_run() -> None:
    house = House(most=1)
    first = asyncio.create_task((await house.unary(wait))(REQUEST, FakeContext()))
    for _ in range(2):
        await asyncio.sleep(0)
    assert len(house.calls) == 1

    context = FakeContext()
    with pytest.raises(Abort):
        await (await house.unary(wait))(REQUEST, context)

    assert context.aborted is not None
    assert context.aborted.code is grpc.StatusCode.UNAVAILABLE
    assert details(context.aborted)[error_pb2.ErrorDetail].error.code_text == "overloaded"
    assert len(house.calls) == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


# ---------------------------------------------------------------------------- clocks and leaving


async def test_the_callers_deadline_has_its_own_reason() -> None:
    house = House()
    context = FakeContext(remaining=0.01)
    with pytest.raises(Abort):
        await (await house.unary(wait))(REQUEST, context)

    assert context.aborted is not None
    assert context.aborted.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert house.ended("DEADLINE_EXCEEDED")


def test_the_callers_deadline_is_known_by_a_clock_of_milliseconds_too() -> None:
    async def told(remaining: float) -> grpc.StatusCode:
        context = FakeContext(remaining=remaining)
        with pytest.raises(Abort):
            await (await House().unary(wait))(REQUEST, context)
        assert context.aborted is not None
        return context.aborted.code

    async def all_told() -> set[grpc.StatusCode]:
        return {await told(0.002 + step * 0.00007) for step in range(30)}

    assert uvloop.run(all_told()) == {grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_our_own_clock_is_the_upstreams_fault() -> None:
    house = House(longest=0.01)
    context = FakeContext()
    with pytest.raises(Abort):
        await (await house.unary(wait))(REQUEST, context)

    assert context.aborted is not None
    assert details(context.aborted)[error_pb2.ErrorDetail].error.code_text == "upstream_timeout"
    assert house.ended("UPSTREAM_TIMEOUT")


async def test_the_clock_covers_a_caller_who_does_not_read() -> None:
    class Unread(FakeContext):
        async def write(self, message: Any) -> None:
            await asyncio.Event().wait()

    async def behavior(request: Any, context: Any) -> AsyncGenerator[Any]:
        yield [1]

    house = House(longest=0.2)
    context = Unread()
    with pytest.raises(Abort):
        await (await house.streamed(behavior))(REQUEST, context)

    assert house.ended("UPSTREAM_TIMEOUT", "StreamChatCompletion")


async def test_a_caller_who_leaves_is_recorded_and_told_nothing() -> None:
    house = House()
    begun = asyncio.Event()
    closed = []

    async def behavior(request: Any, context: Any) -> AsyncGenerator[Any]:
        try:
            yield [1]
            begun.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    context = FakeContext()
    task = asyncio.create_task((await house.streamed(behavior))(REQUEST, context))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert context.aborted is None
    assert closed
    assert house.ended("CANCELLED", "StreamChatCompletion")


async def test_a_failure_is_not_told_to_a_caller_who_left() -> None:
    house = House()

    async def behavior(request: Any, context: Any) -> Any:
        raise errors.UpstreamError

    context = FakeContext(done=True)
    with pytest.raises(asyncio.CancelledError):
        await (await house.unary(behavior))(REQUEST, context)

    assert context.aborted is None
    assert house.ended("UPSTREAM_ERROR")


async def test_an_exception_after_the_caller_left_is_no_defect(lines: Lines) -> None:
    house = House()

    async def behavior(request: Any, context: Any) -> Any:
        raise Unforeseen

    with pytest.raises(asyncio.CancelledError):
        await (await house.unary(behavior))(REQUEST, FakeContext(done=True))

    assert house.ended("CANCELLED")
    assert [line["event"] for line in lines()] == ["call"]


async def test_a_message_that_cannot_be_written_means_that_the_caller_left(lines: Lines) -> None:
    class Lost(FakeContext):
        async def write(self, message: Any) -> None:
            raise grpc.aio.InternalError

    async def behavior(request: Any, context: Any) -> AsyncGenerator[Any]:
        yield [1]

    house = House()
    context = Lost()
    with pytest.raises(asyncio.CancelledError):
        await (await house.streamed(behavior))(REQUEST, context)

    assert context.aborted is None
    assert house.ended("CANCELLED", "StreamChatCompletion")
    assert [line["event"] for line in lines()] == ["call"]


@pytest.mark.parametrize("requests", [[], [REQUEST, REQUEST]])
async def test_a_call_without_one_message_is_refused(requests: list[Any]) -> None:
    async def not_reached(request: Any, context: Any) -> Any:
        raise AssertionError("not reached")

    house = House()
    wrapped = await house.wrap(grpc.unary_unary_rpc_method_handler(not_reached), UNARY)
    context = FakeContext()
    context.requests = requests
    with pytest.raises(Abort):
        await _in_a_task(wrapped.stream_unary(None, context))

    assert context.aborted is not None
    assert context.aborted.code is grpc.StatusCode.INVALID_ARGUMENT
    assert house.ended("INVALID_REQUEST")


class Silent(FakeContext):
    """Return the context of a call whose message does not arrive."""

    async def read(self) -> Any:
        await asyncio.Event().wait()


async def test_a_stranger_is_refused_before_the_message_is_read() -> None:
    house = House()
    context = Silent(metadata=(("authorization", STRANGER),))
    with pytest.raises(Abort):
        await (await house.unary(wait))(REQUEST, context)

    assert context.aborted is not None
    assert context.aborted.code is grpc.StatusCode.UNAUTHENTICATED
    assert house.ended("INVALID_API_KEY")


async def test_a_message_that_does_not_come_is_not_waited_for_beyond_the_deadline() -> None:
    house = House()
    with pytest.raises(Abort):
        await (await house.unary(wait))(REQUEST, Silent(remaining=0.01))

    assert house.ended("DEADLINE_EXCEEDED")


async def test_a_call_counts_until_grpc_has_sent_its_end() -> None:
    house = House()
    wrapped = await house.wrap(grpc.unary_unary_rpc_method_handler(answer), UNARY)
    context = FakeContext()
    context.requests = [REQUEST]
    answered, sent = asyncio.Event(), asyncio.Event()

    async def serving() -> None:
        await wrapped.stream_unary(None, context)
        answered.set()
        await sent.wait()

    task = asyncio.create_task(_in_a_task(serving()))
    await answered.wait()
    assert len(house.calls) == 1
    sent.set()
    await task
    assert house.ended("")


async def test_a_call_that_comes_while_the_listener_closes_is_told_that_the_server_drains() -> None:
    house = House()
    house.calls.close()
    context = FakeContext()
    serving = asyncio.create_task((await house.unary(answer))(REQUEST, context))
    await asyncio.sleep(0)
    assert context.aborted is None
    house.calls.refuse()
    with pytest.raises(Abort):
        await serving

    assert context.aborted is not None
    assert context.aborted.code is grpc.StatusCode.UNAVAILABLE
    info = details(context.aborted)[error_details_pb2.ErrorInfo]
    assert (info.reason, info.metadata["retryable"]) == ("DRAINING", "true")
    assert house.ended("DRAINING")


@pytest.mark.parametrize("dispatched", [True, False])
async def test_a_call_that_is_cut_is_told_that_the_server_drains(dispatched: bool) -> None:
    house = House()
    begun = asyncio.Event()

    async def behavior(request: Any, context: Any) -> Any:
        CURRENT.get().dispatched = dispatched
        begun.set()
        await asyncio.Event().wait()

    context = FakeContext()
    task = asyncio.create_task((await house.unary(behavior))(REQUEST, context))
    await begun.wait()
    house.calls.cut()
    with pytest.raises(Abort):
        await task

    assert context.aborted is not None
    assert context.aborted.code is grpc.StatusCode.UNAVAILABLE
    found = details(context.aborted)
    assert found[error_details_pb2.ErrorInfo].reason == "DRAINING"
    assert (error_details_pb2.RetryInfo in found) is not dispatched
    assert ("grpc-retry-pushback-ms" in dict(context.aborted.trailing_metadata)) is dispatched
    assert house.ended("DRAINING")


async def test_a_drain_does_not_cut_a_call_that_is_telling_how_it_failed() -> None:
    telling, go_on = asyncio.Event(), asyncio.Event()

    class Slow(FakeContext):
        async def send_initial_metadata(self, metadata: Any) -> None:
            telling.set()
            await go_on.wait()
            await super().send_initial_metadata(metadata)

    house = House()
    context = Slow()
    failing = asyncio.create_task(house.fail(errors.UpstreamError(dispatched=True), context))
    async with asyncio.timeout(5):
        await telling.wait()
        house.calls.cut()
        go_on.set()
        _, found = await failing

    assert found[error_details_pb2.ErrorInfo].reason == "UPSTREAM_ERROR"
    assert house.ended("UPSTREAM_ERROR")


@pytest.mark.parametrize("lost", ["send_initial_metadata", "abort"])
async def test_a_caller_who_leaves_while_a_failure_is_told_is_no_defect(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise grpc.aio.InternalError

    async def behavior(request: Any, context: Any) -> Any:
        raise errors.UpstreamError(dispatched=True)

    house = House()
    context = FakeContext()
    monkeypatch.setattr(context, lost, fail)
    with pytest.raises(asyncio.CancelledError):
        await (await house.unary(behavior))(REQUEST, context)
    assert house.ended("UPSTREAM_ERROR")


async def test_bytes_that_are_no_message_are_told_as_an_invalid_request() -> None:
    def refuse(_: bytes) -> None:
        raise DecodeError("what the bytes were")

    async def answer(_: object, __: object) -> None:
        raise AssertionError("not reached")

    house = House()
    handler: Any = grpc.unary_unary_rpc_method_handler(answer, request_deserializer=refuse)
    wrapped = await house.wrap(handler, UNARY)
    context = FakeContext()
    with pytest.raises(Abort):
        await _serve(wrapped.stream_unary)(wrapped.request_deserializer(b"\xff"), context)
    assert context.aborted is not None
    assert context.aborted.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "what the bytes were" not in context.aborted.details

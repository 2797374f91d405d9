"""Faults of gRPC callers, which must not affect other callers.

cancellation at any moment   -> the upstream connection is closed within 250 ms
a caller who does not read   -> the upstream is not read further, and memory stays bounded
too large or too many        -> REQUEST_TOO_LARGE, OVERLOADED, or gRPC's own limits
smuggled parameters          -> rejected before anything is sent
redirected requests          -> never
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import re
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from chatcompletion.v1.model_service_pb2 import GetModelRequest, ListModelsRequest
from service.simulator import RequestRecord, SimulatorServer
from tests.support.footprint import Footprint
from tests.support.grpc_client import KEY, Client, client, failed, params, serving, watched
from tests.support.running_service import Running, service, simulator
from tests.support.waiting import PATIENCE, until

LONGEST_CLOSING: Final = 0.25
"""Maximum seconds until the upstream connection is closed."""
ENDLESS: Final = "sim:itd=0.005,tokens=100000"
SILENT: Final = "sim-fault:hang-before-headers"
STUCK: Final = "sim-fault:hang-mid-stream"

Call = Any
"""A call in progress. Its type is generic for type checkers only."""


@asynccontextmanager
async def _service(
    *names: str, **changes: Any
) -> AsyncIterator[tuple[Running, SimulatorServer, Footprint]]:
    """Run a service with a simulator, and yield the process's footprint when both are warm."""
    async with (
        simulator() as upstream,
        service(["any", *names], upstream, **changes) as running,
    ):
        await running.client.create("any")
        await upstream.next_record()
        yield running, upstream, Footprint.take()


async def _was_left(record: RequestRecord, since: float) -> None:
    """Check that the upstream connection was closed soon after a monotonic time."""
    async with asyncio.timeout(PATIENCE):
        await record.ended.wait()
    assert record.outcome == "caller_left"
    assert record.finished is not None
    assert record.finished - since < LONGEST_CLOSING


# --------------------------------------------------------------------------------------- leaving


async def _cancels(call: Call, _: Client) -> None:
    call.cancel()


async def _hangs_up(_: Call, caller: Client) -> None:
    await caller.channel.close(grace=None)


LEAVING: Final[tuple[Callable[[Call, Client], Awaitable[None]], ...]] = (_cancels, _hangs_up)


@pytest.mark.alone
@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("streamed", [False, True])
async def test_leaves_before_the_upstreams_headers(
    leave: Callable[[Call, Client], Awaitable[None]], streamed: bool
) -> None:
    async with _service(SILENT) as (running, upstream, before):
        async with client(running.address) as caller:
            call = caller.start_stream(SILENT) if streamed else caller.start_create(SILENT)
            record = await upstream.next_record()
            left = time.monotonic()
            await leave(call, caller)
            await _was_left(record, left)
            del call  # which holds its connection
        await running.rests()
        method = "StreamChatCompletion" if streamed else "CreateChatCompletion"
        assert _ended(running, method, SILENT, "CANCELLED") == 1
        await running.client.create("any")
        await before.returns()


@pytest.mark.alone
@pytest.mark.parametrize("leave", LEAVING)
async def test_leaves_during_a_unary_answer(
    leave: Callable[[Call, Client], Awaitable[None]],
) -> None:
    async with _service(STUCK) as (running, upstream, before):
        async with client(running.address) as caller:
            call = caller.start_create(STUCK)
            record = await upstream.next_record()
            await until(lambda: record.bytes_sent > 0)
            left = time.monotonic()
            await leave(call, caller)
            await _was_left(record, left)
            del call  # which holds its connection
        await running.rests()
        assert _ended(running, "CreateChatCompletion", STUCK, "CANCELLED") == 1
        await before.returns()


@pytest.mark.alone
@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("model", [ENDLESS, STUCK])
async def test_leaves_mid_stream(
    leave: Callable[[Call, Client], Awaitable[None]], model: str
) -> None:
    async with _service(model) as (running, upstream, before):
        async with client(running.address) as caller:
            call = caller.start_stream(model)
            record = await upstream.next_record()
            for _ in range(3):
                await call.read()
            left = time.monotonic()
            await leave(call, caller)
            await _was_left(record, left)
            del call  # which holds its connection
        await running.rests()
        assert _ended(running, "StreamChatCompletion", model, "CANCELLED") == 1
        assert running.metric("chat_cancel_to_upstream_close_seconds_count") == 1
        assert running.metric("chat_cancel_to_upstream_close_seconds_sum") < LONGEST_CLOSING
        await before.returns()


@pytest.mark.alone
async def test_cancels_a_stream_that_is_being_read() -> None:
    async with _service(STUCK) as (running, upstream, before):
        call = running.client.start_stream(STUCK)
        record = await upstream.next_record()
        for _ in range(4):
            await call.read()
        reading = asyncio.ensure_future(call.read())  # waits forever
        await until(lambda: record.chunks_sent == 5)
        left = time.monotonic()
        call.cancel()
        await _was_left(record, left)
        await asyncio.wait([reading])
        assert not reading.cancelled() or call.cancelled()
        await running.rests()
        await before.returns()


@pytest.mark.alone
async def test_cancels_a_stream_that_is_not_read() -> None:
    async with _flooding(1) as (running, upstream, before):
        call = running.client.start_stream("flood")
        record = await upstream.next_record()
        await _stands_still(running, [record])
        left = time.monotonic()
        call.cancel()
        await _was_left(record, left)
        await running.rests()
        await before.returns()


@pytest.mark.alone
async def test_hangs_up_while_the_service_waits_to_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with _flooding(1) as (running, upstream, before):
        async with client(running.address) as caller:
            call = caller.start_stream("flood")
            record = await upstream.next_record()
            await _stands_still(running, [record])
            left = time.monotonic()
            await _hangs_up(call, caller)
            await _was_left(record, left)
            del call
        await running.rests()
        assert _ended(running, "StreamChatCompletion", "flood", "CANCELLED") == 1
        assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]
        await before.returns()


@pytest.mark.alone
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_deadline_of_300_ms(streamed: bool) -> None:
    async with _service(SILENT) as (running, upstream, before):
        begun = time.monotonic()
        failure = await running.client.refusal(SILENT, streamed=streamed, deadline=0.3)
        assert failure.code == grpc.StatusCode.DEADLINE_EXCEEDED
        await _was_left(await upstream.next_record(), begun + 0.3)
        await running.rests()
        await before.returns()


@pytest.mark.alone
async def test_a_deadline_mid_stream_comes_after_what_arrived() -> None:
    async with _service(STUCK) as (running, upstream, before):
        begun = time.monotonic()
        result = await running.client.collect(STUCK, deadline=0.3)
        assert result.failure is not None
        assert result.failure.code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0 < len(result.chunks) <= 5
        await _was_left(await upstream.next_record(), begun + 0.3)
        await running.rests()
        await before.returns()


async def test_the_servers_own_clock_bounds_a_call_without_deadline() -> None:
    async with _service(STUCK, request_timeout=0.3) as (running, upstream, before):
        result = await running.client.collect(STUCK, deadline=None)
        assert result.failure is not None
        assert result.failure.reason == "UPSTREAM_TIMEOUT"
        assert len(result.chunks) == 5
        record = await upstream.next_record()
        await record.ended.wait()
        assert record.outcome == "caller_left"
        await running.rests()
        await before.returns()


def _ended(running: Running, method: str, model: str, reason: str) -> float:
    """Return the number of calls that ended with a reason."""
    return running.metric(
        "gen_ai_server_request_duration_seconds_count",
        rpc_method=method,
        gen_ai_request_model=model,
        error_type=reason,
    )


# ----------------------------------------------------------------------------------- not reading

STREAMS: Final = 50
EVENTS: Final = 2000
"""Of 32 KiB each: 64 MiB a stream."""
TAKES_LITTLE: Final = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))
"""Options of a channel that does not read ahead."""
MEBIBYTE: Final = 1024 * 1024


@asynccontextmanager
async def _flooding(
    connections: int,
) -> AsyncIterator[tuple[Running, SimulatorServer, Footprint]]:
    """Run a service whose model `flood` sends far more than any buffer holds."""
    async with _service("flood", max_concurrent_calls=connections + 10) as everything:
        _, upstream, _ = everything
        upstream.stream_with("flood", [_event("x" * 32 * 1024)] * EVENTS + [_event("", "stop")])
        yield everything


def _event(content: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return json.dumps(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        | {"choices": [choice]}
    ).encode()


async def _stands_still(running: Running, records: list[RequestRecord]) -> int:
    """Wait until an upstream stops sending while other calls work; return the bytes it sent."""
    async with asyncio.timeout(PATIENCE):
        while True:
            sent = sum(record.bytes_sent for record in records)
            for _ in range(5):
                await running.client.create("any")
            if sent and sent == sum(record.bytes_sent for record in records):
                return sent


@pytest.mark.alone
async def test_streams_that_nobody_reads_are_held_at_the_upstream() -> None:
    async with (
        _flooding(STREAMS) as (running, upstream, before),
        client(running.address, options=TAKES_LITTLE) as caller,
    ):
        memory = _resident()
        calls = [caller.start_stream("flood") for _ in range(STREAMS)]
        records = [await upstream.next_record() for _ in calls]
        sent = await _stands_still(running, records)
        # Most of it is in the kernel's buffers of both ends of each connection.
        assert sent / STREAMS < 12 * MEBIBYTE
        assert max(record.chunks_sent for record in records) < EVENTS / 2
        # Caller, service and upstream together.
        assert _resident() - memory < STREAMS * 2 * MEBIBYTE

        for call in calls:
            call.cancel()
        async with asyncio.timeout(PATIENCE):
            for record in records:
                await record.ended.wait()
        assert {record.outcome for record in records} == {"caller_left"}
        await running.rests()
        await caller.channel.close()
        del call
        calls.clear()
        await before.returns()


async def test_who_reads_again_misses_nothing() -> None:
    async with _flooding(1) as (running, upstream, _):
        call = running.client.start_stream("flood")
        record = await upstream.next_record()
        await _stands_still(running, [record])
        for _ in range(EVENTS):
            response: Any = await call.read()
            assert len(response.chunk.choices[0].delta.content_text) == 32 * 1024
        response = await call.read()
        assert response.chunk.choices[0].finish_reason == "stop"
        assert await call.code() == grpc.StatusCode.OK
        assert record.outcome == "completed"
        await running.rests()


def _resident() -> int:
    """Return the memory of this process, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# -------------------------------------------------------------------------------------- too much


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_over_the_limit(streamed: bool) -> None:
    limit = 64 * 1024
    async with _service(max_request_bytes=limit) as (running, upstream, before):
        fits = params("any", messages=[{"role": "user", "content": "x" * (limit - 100)}])
        await running.client.create(fits)
        over = params("any", messages=[{"role": "user", "content": "x" * limit}])
        failure = await running.client.refusal(over, streamed=streamed)
        assert failure.code == grpc.StatusCode.INVALID_ARGUMENT
        assert failure.reason == "REQUEST_TOO_LARGE"
        assert failure.http_status == 413
        assert not failure.retryable
        assert failure.error.code_text == "request_too_large"

        far_over = params("any", messages=[{"role": "user", "content": "x" * 10 * limit}])
        failure = await running.client.refusal(far_over, streamed=streamed)
        # The status is gRPC's own, without details, because the message was not parsed.
        assert failure.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failure.reason == ""
        assert len(upstream.records) == 2
        await before.returns()


async def test_metadata_over_the_limit_costs_the_call_and_no_more() -> None:
    async with _service() as (running, upstream, before):
        await running.client.create("any", metadata=(("x-large", "x" * 15_000),))
        for size in (17 * 1024, 100 * 1024, 1024 * 1024):
            failure = await running.client.refusal("any", metadata=(("x-large", "x" * size),))
            assert failure.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        await running.client.create("any")
        assert len(upstream.records) == 3
        await before.returns()


async def test_one_call_too_many_is_refused_and_may_come_back() -> None:
    async with _service(SILENT, max_concurrent_calls=2) as (running, upstream, _):
        # On one connection, which a watcher of the health shares.
        caller = running.client
        watching = asyncio.ensure_future(watched(caller, health_pb2.HealthCheckResponse.UNKNOWN))
        holding = [caller.start_create(SILENT) for _ in range(2)]
        records = [await upstream.next_record() for _ in holding]
        for streamed in (False, True):
            failure = await caller.refusal("any", streamed=streamed)
            assert failure.code == grpc.StatusCode.UNAVAILABLE
            assert failure.reason == "OVERLOADED"
            assert failure.http_status == 503
            assert failure.retryable
            assert failure.retry_delay == 1.0
            assert not failure.is_final
        assert len(upstream.records) == 3
        await serving(caller)
        holding[0].cancel()
        await records[0].ended.wait()
        await until(lambda: running.calls_in_flight == 1)
        await caller.create("any")
        holding[1].cancel()
        watching.cancel()
        await running.rests()


async def test_a_flood_of_calls_is_answered_and_leaves_those_that_run() -> None:
    most, all_of_them = 10, 60
    async with _service(SILENT, max_concurrent_calls=most) as (running, _, _):
        calls = [running.client.start_create(SILENT) for _ in range(all_of_them)]
        await until(lambda: sum(call.done() for call in calls) == all_of_them - most)
        codes = {await call.code() for call in calls if call.done()}
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        await until(lambda: running.calls_in_flight == most)
        for call in calls:
            call.cancel()
        await running.rests()
        await running.client.create("any")


# ------------------------------------------------------------------------------------- smuggling


def _smuggled(change: Callable[[ChatCompletionParams], None]) -> ChatCompletionParams:
    request = params("any")
    change(request)
    return request


def _second_model(request: ChatCompletionParams) -> None:
    request.extra_json["x"] = '1,"model":"expensive"'


def _model_in_both_places(request: ChatCompletionParams) -> None:
    request.extra_json["model"] = '"expensive"'


def _messages_in_both_places(request: ChatCompletionParams) -> None:
    request.extra_json["messages"] = '[{"role":"user","content":"other"}]'


def _a_mistyped_limit(request: ChatCompletionParams) -> None:
    request.extra_json["max_tokens"] = '"100000000"'


def _a_null_beside_the_model(request: ChatCompletionParams) -> None:
    request.extra_json["model"] = "null"


def _a_null_field_of_the_model(request: ChatCompletionParams) -> None:
    request.null_fields = b"\x01"


def _a_null_field_that_is_none(request: ChatCompletionParams) -> None:
    request.null_fields = b"\x7f" * 1000


def _an_end_of_the_object(request: ChatCompletionParams) -> None:
    request.extra_json["x"] = '1}{"model":"expensive"'


def _nothing(request: ChatCompletionParams) -> None:
    request.extra_json["x"] = ""


def _a_comment(request: ChatCompletionParams) -> None:
    request.extra_json["x"] = "1 // 2"


def _not_a_number(request: ChatCompletionParams) -> None:
    request.temperature = float("nan")


def _infinity(request: ChatCompletionParams) -> None:
    request.logit_bias["1"] = float("inf")


def _infinity_in_text(request: ChatCompletionParams) -> None:
    request.extra_json["x"] = "Infinity"


def _content_in_both_places(request: ChatCompletionParams) -> None:
    request.messages[0].extra_json["content"] = '"other"'


def _a_role_in_both_places(request: ChatCompletionParams) -> None:
    request.messages[0].extra_json["role"] = '"system"'


def _both_limits(request: ChatCompletionParams) -> None:
    request.max_tokens = 1
    request.extra_json["max_completion_tokens"] = "100000000"


def _a_larger_limit_than_allowed(request: ChatCompletionParams) -> None:
    request.extra_json["max_tokens"] = "100000000"


def _stop_in_both_places(request: ChatCompletionParams) -> None:
    request.stop_text = "a"
    request.extra_json["stop"] = '["b"]'


def _garbage_for_a_schema(request: ChatCompletionParams) -> None:
    tool = request.tools.add(type="function")
    tool.function.name = "f"
    tool.function.parameters.text = '{"type":"object"},"strict":true'


def _two_values_for_a_schema(request: ChatCompletionParams) -> None:
    request.response_format.type = "json_schema"
    request.response_format.json_schema.name = "n"
    request.response_format.json_schema.schema.text = "{} {}"


def _a_deep_schema(request: ChatCompletionParams) -> None:
    tool = request.tools.add(type="function")
    tool.function.name = "f"
    tool.function.parameters.text = "[" * 10_000 + "]" * 10_000


def _a_deep_member(request: ChatCompletionParams) -> None:
    request.extra_json["x"] = '{"a":' * 10_000 + "1" + "}" * 10_000


def _an_open_depth(request: ChatCompletionParams) -> None:
    request.extra_json["x"] = "[" * 1_000_000


SMUGGLING: Final = (
    _second_model,
    _model_in_both_places,
    _messages_in_both_places,
    _a_mistyped_limit,
    _a_null_beside_the_model,
    _a_null_field_of_the_model,
    _a_null_field_that_is_none,
    _an_end_of_the_object,
    _nothing,
    _a_comment,
    _not_a_number,
    _infinity,
    _infinity_in_text,
    _content_in_both_places,
    _a_role_in_both_places,
    _both_limits,
    _a_larger_limit_than_allowed,
    _stop_in_both_places,
    _garbage_for_a_schema,
    _two_values_for_a_schema,
    _a_deep_schema,
    _a_deep_member,
    _an_open_depth,
)


async def test_nothing_is_smuggled_past_the_typed_members() -> None:
    # The upstream would also serve the smuggled model.
    async with _service("expensive", max_request_bytes=2**21) as (running, upstream, _):
        for change in SMUGGLING:
            for streamed in (False, True):
                failure = await running.client.refusal(_smuggled(change), streamed=streamed)
                assert failure.code == grpc.StatusCode.INVALID_ARGUMENT, change.__name__
                assert failure.reason == "INVALID_REQUEST", change.__name__
                assert failure.http_status == 422
                assert "expensive" not in str(failure), change.__name__
        assert len(upstream.records) == 1  # the warm-up request
        await running.rests()
        await running.client.create("any")


async def test_what_a_typed_member_can_say_counts_as_said_there() -> None:
    async with _service("cheap") as (running, upstream, _):
        request = params("any")
        request.ClearField("model")
        request.extra_json["model"] = '"cheap"'
        request.extra_json["temperature"] = "7"
        failure = await running.client.refusal(request)
        assert failure.violations == ("params.temperature",)
        request.extra_json["temperature"] = "1"
        completion = await running.client.create(request)
        assert completion.model == "cheap"
        assert upstream.records[-1].document["model"] == "cheap"


async def test_of_duplicate_members_only_the_last_goes_on() -> None:
    async with _service() as (running, upstream, _):
        request = params("any")
        request.extra_json["x"] = '{"model":"first","a":[{"b":1,"b":2}],"model":"last"}'
        await running.client.create(request)
        record = upstream.records[-1]
        assert record.document["x"] == {"model": "last", "a": [{"b": 2}]}
        assert b"first" not in record.body
        assert record.body.count(b'"b"') == 1


async def test_the_members_that_choose_the_form_of_the_answer_are_the_services() -> None:
    async with _service() as (running, upstream, _):
        request = params("any")
        request.extra_json["stream"] = "true"
        assert (await running.client.create(request)).choices
        assert "stream" not in upstream.records[-1].document
        request.extra_json["stream"] = "false"
        assert (await running.client.collect(request)).failure is None
        assert upstream.records[-1].document["stream"] is True


# ----------------------------------------------------------------------------------- redirecting


async def test_no_member_of_a_request_leads_elsewhere() -> None:
    callers: list[Any] = []

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername"))
        writer.close()

    canary = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with canary, _service() as (running, upstream, _):
        url = f"http://127.0.0.1:{canary.sockets[0].getsockname()[1]}"
        refused: dict[str, Any] = {
            "api_base": url,
            "base_url": url,
            "api_key": "sk-of-somebody-else",
            "api_version": "2",
            "extra_headers": {"authorization": "Bearer x", "host": "elsewhere"},
            "extra_body": {"model": "expensive"},
            "custom_llm_provider": "elsewhere",
            "proxy": url,
            "callback": url,
            "timeout": 0,
        }
        # They are vendors' parameters, which the upstream can support.
        members = {"webhook": url, "notify_url": url}
        content = [
            {"type": "image_url", "image_url": {"url": f"{url}/image.png"}},
            {"type": "file", "file": {"file_id": f"{url}/file"}},
            {"type": "video_url", "video_url": {"url": f"{url}/video"}},
        ]
        before = len(upstream.records)
        for name, value in refused.items():
            failure = await running.client.refusal(params("any", **{name: value}))
            assert (failure.reason, failure.error.param) == ("INVALID_REQUEST", name)
        assert len(upstream.records) == before
        request = params("any", messages=[{"role": "user", "content": content}], **members)
        await running.client.create(request, metadata=(("x-api-base", url), ("host", url)))
        record = upstream.records[-1]
        document = record.document
        assert {name: document[name] for name in members} == members
        assert document["messages"][0]["content"] == content
        assert record.headers["host"] == upstream.base_url.removeprefix("http://")
        assert "sk-of-somebody-else" not in str(record.headers)
    assert callers == []


# ------------------------------------------------------------------------------ hostile strings

HOSTILE: Final = (
    "' OR '1'='1",
    "'; DROP TABLE keys; --",
    '" OR ""="',
    "\\",
    "%00%0d%0aset-cookie: a=b",
    "{{7*7}}",
    "${jndi:ldap://localhost/a}",
    "../../etc/passwd",
    "*",
)


async def test_the_answer_to_a_wrong_key_has_its_cause_and_not_the_key() -> None:
    wrong: tuple[tuple[tuple[str, str], ...], ...] = (
        (),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", KEY),),
        (("authorization", f"Basic {KEY}"),),
        (("authorization", f"Bearer {KEY[:-1]}"),),
        (("authorization", f"Bearer {KEY}x"),),
        (("authorization", f"Bearer {KEY.upper()}"),),
        (("authorization", f"Bearer {KEY} {KEY}"),),
        (("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")),
        (("authorization", f"Bearer {'x' * 8000}"),),
        (("x-api-key", KEY),),
        *((("authorization", f"Bearer {text}"),) for text in HOSTILE),
        *((("authorization", f"Bearer {KEY}{text}"),) for text in HOSTILE),
    )
    async with _service() as (running, upstream, _), client(running.address, key=None) as caller:
        causes = set()
        for metadata in wrong:
            for streamed in (False, True):
                failure = await caller.refusal("any", streamed=streamed, metadata=metadata)
                assert failure.code == grpc.StatusCode.UNAUTHENTICATED
                assert failure.trailers.keys() == {"grpc-status-details-bin", "x-request-id"}
                details = failure.trailers["grpc-status-details-bin"]
                assert isinstance(details, bytes)
                assert KEY.encode() not in details
                assert KEY not in failure.message
                causes.add(re.split("[.:] ", failure.message)[0])
            with pytest.raises(grpc.aio.AioRpcError) as listing:
                await caller.models.ListModels(ListModelsRequest(), metadata=metadata)
            assert failed(listing.value).reason == "INVALID_API_KEY"
        assert causes == {
            "No API key provided",
            "No API key provided after 'Bearer'",
            "Invalid 'Authorization' header",
            "The header 'x-api-key' is not read here",
            "Incorrect API key provided",
        }
        assert len(upstream.records) == 1
        # The scheme's name has no case (RFC 9110, section 11.1).
        await caller.create("any", metadata=(("authorization", f"bearer {KEY}"),))


async def test_a_wrong_key_is_told_before_a_wrong_request() -> None:
    async with _service() as (running, _, _), client(running.address, key="sk-wrong") as caller:
        for request in (ChatCompletionParams(), params("unknown"), _smuggled(_second_model)):
            assert (await caller.refusal(request)).reason == "INVALID_API_KEY"


@pytest.mark.parametrize(
    "name", [*HOSTILE, "any\r\nx: y", "any\n", "any ", "ANY", "any\x00", "\U0001f680" * 100_000]
)
async def test_a_hostile_model_is_an_unknown_one(name: str) -> None:
    async with _service() as (running, upstream, _):
        for streamed in (False, True):
            failure = await running.client.refusal(params(name), streamed=streamed)
            assert failure.code == grpc.StatusCode.NOT_FOUND
            assert failure.reason == "MODEL_NOT_FOUND"
            assert failure.error.param == "model"
            assert "does not exist. GET /v1/models" in failure.error.message
            assert len(failure.error.message) < 600
        with pytest.raises(grpc.aio.AioRpcError) as getting:
            await running.client.models.GetModel(
                GetModelRequest(model=name), metadata=running.client.metadata
            )
        assert failed(getting.value).reason == "MODEL_NOT_FOUND"
        assert len(upstream.records) == 1


async def test_a_hostile_request_id_is_replaced_and_a_sane_one_kept() -> None:
    async with _service() as (running, upstream, _):
        for text in (*HOSTILE, "", "x" * 129, "a b"):
            result = await running.client.collect("any", metadata=(("x-request-id", text),))
            told = result.initial_metadata["x-request-id"]
            assert isinstance(told, str)
            assert told.startswith("req_")
            assert upstream.records[-1].headers["x-request-id"] == told
        for text in ("a", "x" * 128, "A-b_c.9"):
            result = await running.client.collect("any", metadata=(("x-request-id", text),))
            assert result.initial_metadata["x-request-id"] == text
            failure = await running.client.refusal("unknown", metadata=(("x-request-id", text),))
            assert failure.trailers["x-request-id"] == text


async def test_a_hostile_traceparent_goes_no_further() -> None:
    async with _service() as (running, upstream, _):
        await running.client.create("any", metadata=(("traceparent", "x" * 4000),))
        assert "traceparent" not in upstream.records[-1].headers


async def test_a_text_forges_no_event() -> None:
    forged = '\n\ndata: {"error":{"message":"forged"}}\n\ndata: [DONE]\n\n\r\r: \u2028'
    async with _service("forged") as (running, upstream, _):
        events = [_event(forged), _event(forged, "stop")]
        upstream.stream_with("forged", events)
        request = params("forged", messages=[{"role": "user", "content": forged, "name": forged}])
        result = await running.client.collect(request)
        assert result.failure is None
        assert result.text == forged * 2
        message = upstream.records[-1].document["messages"][0]
        assert message == {"role": "user", "content": forged, "name": forged}
        assert b"\n" not in upstream.records[-1].body

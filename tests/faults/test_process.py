"""The service as a process: start, drain, stop and logs.

SIGTERM     NOT_SERVING, serves during the delay, grace, DRAINING for the rest, exit 0
SIGTERM²    the same, immediately
start       exit 1 if an address is taken, 2 if a setting is wrong, with its name
logs        JSON on every line; no key, prompt or completion in logs and metrics
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import http.client
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from process.settings import rows
from service.config import Settings
from service.models_source import NO_UPSTREAM
from tests.support.grpc_client import KEY, Client, client, failed, params, serving, watched
from tests.support.processes import Process, environment, process, service_process
from tests.support.running_service import service as in_this_process
from tests.support.running_service import simulator
from tests.support.waiting import PATIENCE

NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
SERVICES: Final = (
    "chatcompletion.v1.ChatCompletionService",
    "chatcompletion.v1.ModelService",
    "chatcompletion.v1.CreditService",
)
FOREVER: Final = "600"
"""Seconds, longer than any test: only an event ends such a wait."""
UPSTREAM_KEY: Final = "sk-canary-upstream-key-31415926"


@asynccontextmanager
async def _models(tmp_path: Path, *names: str, **changes: str) -> AsyncIterator[Any]:
    """Run a service process with a simulator in this process that serves these models."""
    async with simulator() as upstream:
        text = f'[upstreams.u]\nbase_url = "{upstream.base_url}"\napi_key_variable = "UPSTREAM"\n'
        for name in ("any", *names):
            text += (
                f'[models."{name}"]\nupstream = "u"\nupstream_model = "{name}"\n'
                "default_output_tokens = 1000\nmaximum_output_tokens = 1000000\n"
            )
        file = tmp_path / "models.toml"
        file.write_text(text)
        variables = {"CHAT_MODELS_FILE": str(file), "UPSTREAM": UPSTREAM_KEY, **changes}
        async with service_process(**variables) as (running, caller):
            yield running, caller, upstream


async def _health(caller: Client, name: str) -> int:
    status: int = (await caller.health.Check(health_pb2.HealthCheckRequest(service=name))).status
    return status


async def _last_finish_reason(call: Any) -> str:
    """Read the rest of a stream."""
    finish_reason = ""
    while (response := await call.read()) is not grpc.aio.EOF:
        for choice in response.chunk.choices:
            finish_reason = choice.finish_reason
    return finish_reason


def _assert_json(running: Process) -> None:
    for line in running.lines:
        assert {"time", "level", "logger", "event"} <= json.loads(line).keys()


# ---------------------------------------------------------------------------------------- drains


async def test_a_stream_shorter_than_the_grace_is_completed(tmp_path: Path) -> None:
    model = "sim:itd=0.02,tokens=20"
    async with _models(tmp_path, model, CHAT_DRAIN_GRACE=FOREVER) as (running, caller, upstream):
        call = caller.start_stream(model)
        await call.read()
        running.send(signal.SIGTERM)
        assert await _last_finish_reason(call) == "stop"
        assert await call.code() == grpc.StatusCode.OK
        assert await running.exit_status() == 0
        assert upstream.records[0].outcome == "completed"
        assert (await running.event("stopped"))["level"] == "info"
        _assert_json(running)


async def test_a_call_longer_than_the_grace_is_told_that_the_service_drains(
    tmp_path: Path,
) -> None:
    names = ("sim-fault:hang-mid-stream", "sim-fault:hang-before-headers")
    async with _models(tmp_path, *names, CHAT_DRAIN_GRACE="0.1") as (running, caller, upstream):
        streaming = asyncio.ensure_future(caller.collect(names[0]))
        waiting = asyncio.ensure_future(caller.refusal(names[1]))
        records = [await upstream.next_record() for _ in names]
        running.send(signal.SIGTERM)
        result = await streaming
        for failure in (result.failure, await waiting):
            assert failure is not None
            assert failure.code == grpc.StatusCode.UNAVAILABLE
            assert failure.reason == "DRAINING"
            assert failure.http_status == 503
            # Not retryable, because the upstream has started to generate.
            assert not failure.retryable
            assert failure.is_final
        assert len(result.chunks) == 5
        for record in records:
            async with asyncio.timeout(5):
                await record.ended.wait()
            assert record.outcome == "caller_left"
        assert await running.exit_status() == 0
        assert [line["reason"] for line in running.events("call")] == ["DRAINING", "DRAINING"]
        _assert_json(running)


async def test_health_says_so_at_once_while_calls_are_served_on() -> None:
    async with service_process(CHAT_DRAIN_DELAY=FOREVER) as (running, caller):
        for name in ("", *SERVICES, "liveness"):
            assert await _health(caller, name) == SERVING
        watching = asyncio.ensure_future(watched(caller, NOT_SERVING, SERVICES[0]))
        running.send(signal.SIGTERM)
        await watching
        await watched(caller, NOT_SERVING)
        for name in ("", *SERVICES):
            assert await _health(caller, name) == NOT_SERVING
        assert await _health(caller, "liveness") == SERVING
        await caller.create("default")
        # New connections are still accepted, because routers have not seen the health yet.
        async with client(caller_address(running)) as other:
            assert (await other.collect("default")).failure is None
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0


def caller_address(running: Process) -> str:
    """Return the address in a process's log."""
    return str(json.loads(running.lines[0])["address"])


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    model = "sim-fault:hang-mid-stream"
    changes = {"CHAT_DRAIN_DELAY": FOREVER, "CHAT_DRAIN_GRACE": FOREVER}
    async with _models(tmp_path, model, **changes) as (running, caller, upstream):
        streaming = asyncio.ensure_future(caller.collect(model))
        record = await upstream.next_record()
        running.send(signal.SIGTERM)
        await watched(caller, NOT_SERVING)
        assert not streaming.done()
        running.send(signal.SIGTERM)
        result = await streaming
        assert result.failure is not None
        assert result.failure.reason == "DRAINING"
        assert await running.exit_status() == 0
        async with asyncio.timeout(5):
            await record.ended.wait()
        assert record.outcome == "caller_left"


async def test_an_interrupt_skips_the_delay_but_not_the_grace(tmp_path: Path) -> None:
    model = "sim:itd=0.02,tokens=20"
    changes = {"CHAT_DRAIN_DELAY": FOREVER, "CHAT_DRAIN_GRACE": FOREVER}
    async with _models(tmp_path, model, **changes) as (running, caller, upstream):
        streaming = asyncio.ensure_future(caller.collect(model))
        await upstream.next_record()
        running.send(signal.SIGINT)
        assert (await streaming).failure is None
        assert await running.exit_status() == 0


async def test_a_watcher_does_not_keep_the_process() -> None:
    async with service_process(CHAT_DRAIN_GRACE=FOREVER) as (running, caller):
        watch = caller.health.Watch(health_pb2.HealthCheckRequest(service="liveness"))
        assert (await watch.read()).status == SERVING
        running.send(signal.SIGTERM)
        # The last line of a process that has ended.
        assert await watch.code() == grpc.StatusCode.UNAVAILABLE
        assert await watch.details() == "The server is shutting down."
        assert await running.exit_status() == 0


async def test_a_killed_service_leaves_the_upstream(tmp_path: Path) -> None:
    model = "sim-fault:hang-mid-stream"
    async with _models(tmp_path, model) as (running, caller, upstream):
        streaming = asyncio.ensure_future(caller.collect(model))
        record = await upstream.next_record()
        running.send(signal.SIGKILL)
        result = await streaming
        assert result.failure is not None
        assert result.failure.code == grpc.StatusCode.UNAVAILABLE
        assert await running.exit_status() == -signal.SIGKILL
        async with asyncio.timeout(5):
            await record.ended.wait()
        assert record.outcome == "caller_left"


async def test_a_killed_bridge_leaves_the_service_which_leaves_the_upstream() -> None:
    stuck = "sim-fault:hang-mid-stream"
    async with simulator() as upstream, in_this_process(["any", stuck], upstream) as running:
        variables = {
            "CHAT_SERVICE_TARGET": running.address,
            "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
        }
        async with process("restbridge", variables) as bridge:
            body = json.dumps(
                {"model": stuck, "stream": True, "messages": [{"role": "user", "content": "x"}]}
            ).encode()
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
            host, _, port = (await bridge.address()).rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head + body)
            record = await upstream.next_record()
            await reader.readuntil(b"data: ")
            bridge.send(signal.SIGKILL)
            assert await bridge.exit_status() == -signal.SIGKILL
            async with asyncio.timeout(5):
                await record.ended.wait()
            assert record.outcome == "caller_left"
            writer.close()
        await running.rests()
        await running.client.create("any")


async def test_a_stopped_process_goes_on_where_it_was() -> None:
    async with service_process(CHAT_SIMULATOR_INTER_TOKEN_DELAY="0.02") as (running, caller):
        call = caller.start_stream("default")
        await call.read()
        running.send(signal.SIGSTOP)
        other = caller.start_create("default")
        running.send(signal.SIGCONT)
        assert await _last_finish_reason(call) == "stop"
        assert (await other).completion.choices
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0


# ---------------------------------------------------------------------------------------- starts


@pytest.mark.parametrize("name", ["CHAT_LISTEN", "CHAT_METRICS_LISTEN"])
async def test_a_port_in_use_is_named(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with process("service", environment(**{name: address})) as running:
            assert await running.exit_status() == 1
            told = f"{name}: cannot listen on {address}: Address already in use. Port "
            assert running.lines[-1].startswith(told)
            free = running.lines[-1].rpartition("=")[2]
            assert running.lines[-1].endswith(f" is free; write: {name}={free}")
            assert address != free
            assert os.listdir(running.directory) == []
            assert "Traceback" not in "".join(running.lines)


async def test_two_services_never_share_a_port() -> None:
    async with service_process() as (running, caller):
        address = caller_address(running)
        async with process("service", environment(CHAT_LISTEN=address)) as second:
            assert await second.exit_status() == 1
            told = f"CHAT_LISTEN: cannot listen on {address}: Address already in use. Port "
            assert second.lines[-1].startswith(told)
            # gRPC's core, which reports this too, writes no line of its own.
            assert not any("add_port.cc" in line for line in second.lines)
        await caller.create("default")


async def test_wrong_settings_are_all_named_without_secrets() -> None:
    wrong = {
        "CHAT_LISTEN": "nowhere",
        "CHAT_UPSTREAM_BASE_URL": "ftp://user:canary@h",
        "CHAT_BOOTSTRAP_API_KEY": "canary",
        "CHAT_MAX_CONCURRENT_CALLS": "many",
        "CHAT_REQUEST_TIMEOUT": "soon",
        "CHAT_MODELS_FILE": "/absent",
        "CHAT_LOG_LEVEL": "loud",
    }
    async with process("service", environment(**wrong)) as running:
        assert await running.exit_status() == 2
    assert sorted(line.partition(" must be ")[0] for line in running.lines) == sorted(wrong)
    assert "canary" not in "".join(running.lines)
    for found in ("nowhere", "many", "soon", "/absent", "loud"):
        assert f'; found "{found}"' in "\n".join(running.lines)


async def test_a_wrong_models_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[upstreams.u]\nbase_url = "http://127.0.0.1:1"\n[models.m]\nupstream = "x"\n')
    async with process("service", environment(CHAT_MODELS_FILE=str(file))) as running:
        assert await running.exit_status() == 2
    assert running.lines == [
        "CHAT_MODELS_FILE: models.m.upstream_model is missing: "
        "it must be the model's name at the upstream",
        "CHAT_MODELS_FILE: models.m.maximum_output_tokens is missing: "
        "it must be an integer from 1 to 10000000",
        'CHAT_MODELS_FILE: models.m.upstream must be one of u; found "x"',
    ]


@pytest.mark.parametrize("option", ["--help", "-h"])
async def test_help_has_every_setting(option: str) -> None:
    async with process("service", {}, option) as running:
        assert await running.exit_status() == 0
    assert running.lines == []
    text = running.output.decode()
    assert text.startswith("usage: python -m service [--workers N]\n")
    for row in rows(Settings):
        assert f"  {row.name} (default: " in text
        assert row.meaning in text


async def test_an_unknown_argument_is_refused() -> None:
    async with process("service", environment(), "--listen=127.0.0.1:1") as running:
        assert await running.exit_status() == 2
    assert "--help" in running.lines[0]


# -------------------------------------------------------------------------------------- is asked


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services_and_finds_their_methods(version: str) -> None:
    symbols = {
        f"{SERVICES[0]}.CreateChatCompletion": "chatcompletion/v1/chat_completion_service.proto",
        "chatcompletion.v1.ErrorDetail": "chatcompletion/v1/error.proto",
        "google.rpc.RetryInfo": "google/rpc/error_details.proto",
        "google.rpc.Status": "google/rpc/status.proto",
        "grpc.reflection.v1.ServerReflection": "grpc/reflection/v1/reflection.proto",
    }
    async with service_process() as (_, caller):
        ask = caller.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call: Any = ask()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = await call.read()
        assert {service.name for service in listed.list_services_response.service} == {
            *SERVICES,
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        for symbol, file in symbols.items():
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
            found = (await call.read()).file_descriptor_response.file_descriptor_proto
            assert FileDescriptorProto.FromString(found[0]).name == file
        unknown = f"{SERVICES[0]}.No"
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=unknown))
        assert (await call.read()).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_the_health_of_every_name_can_be_listed() -> None:
    async with service_process() as (_, caller):
        ask = caller.channel.unary_unary(
            "/grpc.health.v1.Health/List",
            request_serializer=health_pb2.HealthListRequest.SerializeToString,  # type: ignore[attr-defined]
            response_deserializer=health_pb2.HealthListResponse.FromString,  # type: ignore[attr-defined]
        )
        listed: Any = await ask(health_pb2.HealthListRequest())  # type: ignore[attr-defined]
        states = {name: found.status for name, found in listed.statuses.items()}
        assert states == dict.fromkeys(("", "liveness", *SERVICES), SERVING)


async def test_an_unknown_method_and_an_unknown_health_name() -> None:
    async with service_process() as (_, caller):
        unknown: Any = caller.channel.unary_unary("/chatcompletion.v1.ChatCompletionService/No")
        for call, code in (
            (unknown(b""), grpc.StatusCode.UNIMPLEMENTED),
            (
                caller.health.Check(health_pb2.HealthCheckRequest(service="no")),
                grpc.StatusCode.NOT_FOUND,
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() == code


async def test_bytes_that_are_no_message_are_refused_and_no_more() -> None:
    async with service_process() as (running, caller):
        for method in ("CreateChatCompletion", "StreamChatCompletion"):
            garbage: Any = caller.channel.unary_unary(f"/{SERVICES[0]}/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await garbage(b"\xff\xff\xff canary", metadata=caller.metadata)
            failure = failed(refused.value)
            assert failure.code == grpc.StatusCode.INVALID_ARGUMENT
            assert failure.reason == "INVALID_REQUEST"
            assert failure.message == "The request is not a message of this method."
        await caller.create("default")
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0
        _assert_json(running)
        assert "canary" not in "\n".join(running.lines)


# ----------------------------------------------------------------------------------------- tells


def _metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


async def test_no_key_no_prompt_and_no_answer_is_logged_or_counted(tmp_path: Path) -> None:
    prompt, answer, wrong_key = "canary-prompt", "canary-answer", "sk-canary-wrong-key-271828"
    names = (
        *("scripted", "sim-fault:400-internal-details", "sim-fault:500", "sim-fault:401"),
        *("sim-fault:malformed-event", "sim-fault:reset-mid-stream", "sim-fault:bad-chunking"),
    )
    changes = {"CHAT_METRICS_LISTEN": "127.0.0.1:0", "CHAT_LOG_LEVEL": "debug"}
    async with _models(tmp_path, *names, **changes) as (running, caller, upstream):
        port = (await running.event("serving"))["metrics_port"]
        upstream.reply_with("scripted", body=_completion(answer))
        for name in ("any", *names):
            request = params(name, messages=[{"role": "user", "content": prompt}], user=prompt)
            await caller.collect(request)
            await caller.start_create(request).code()
        for bad in (
            params("any", messages=[{"role": prompt, "content": 5, prompt: prompt}], n=prompt),
            params("any", temperature=1e9, **{prompt: prompt}),
            params(prompt),
        ):
            await caller.refusal(bad)
        async with client(caller_address(running), key=wrong_key) as stranger:
            assert (await stranger.refusal("any")).reason == "INVALID_API_KEY"
        leaving = caller.start_stream("any", metadata=(("x-request-id", "x\tcanary-id"),))
        leaving.cancel()
        rests = 'chat_calls_in_flight{rpc_method="CreateChatCompletion"} 0.0'
        async with asyncio.timeout(PATIENCE):
            while rests not in (metrics := await asyncio.to_thread(_metrics, port)):
                pass  # a call ends after its caller has read its end
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0
        said = "\n".join(running.lines) + running.output.decode()
        for canary in (prompt, answer, wrong_key, KEY, UPSTREAM_KEY, "canary", "simulated-456"):
            assert canary not in said
            assert canary not in metrics
        _assert_json(running)
        assert len(upstream.records) >= 2 * len(names)
        reasons = {line["reason"] for line in running.events("call")}
        assert {"OK", "INVALID_REQUEST", "INVALID_API_KEY", "UPSTREAM_ERROR"} <= reasons
        assert re.search(r'_count\{error_type="UPSTREAM_ACCOUNT",.*\} 1\.0', metrics)


def _completion(content: str) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "stop",
    }
    return json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


async def test_it_serves_with_an_upstream_as_the_only_setting() -> None:
    # All defaults except the addresses, which other tests can occupy.
    addresses = {"CHAT_LISTEN": "127.0.0.1:0", "CHAT_METRICS_LISTEN": "none"}
    async with process("service", addresses) as running:
        assert await running.exit_status() == 2
        assert running.lines == [NO_UPSTREAM]
    variables = {**addresses, "CHAT_UPSTREAM_BASE_URL": "simulator"}
    async with (
        process("service", variables) as running,
        client(await running.address()) as caller,
    ):
        await serving(caller)
        # There is no API key, so none is accepted.
        assert (await caller.refusal("default")).reason == "INVALID_API_KEY"
        line = await running.event("serving")
        assert line["upstream"] == "the built-in simulator"
        [model] = line["models"]
        assert model.startswith("default -> google/gemma-3-4b-it at the built-in simulator, key ")
        running.send(signal.SIGINT)
        assert await running.exit_status() == 0

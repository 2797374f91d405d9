"""Calls whose request message does not arrive, is incomplete, is repeated, or has no valid key.

HEADERS, END_STREAM            -> INVALID_REQUEST immediately, counted as a call
HEADERS, and never a message   -> counted, and ended by the message timeout or the deadline
two messages                   -> INVALID_REQUEST, and nothing is sent upstream
no valid key                   -> INVALID_API_KEY before the message is read
health, reflection             -> the same, with separate limits
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2

from chatcompletion.v1.chat_completion_service_pb2 import CreateChatCompletionRequest
from service import probes, request_message
from service.simulator import SimulatorServer
from tests.support.accounts_admin import TOKEN, admin
from tests.support.footprint import Footprint
from tests.support.grpc_client import KEY, Client, client, failed, params, watched
from tests.support.processes import service_process
from tests.support.raw_http2 import CHECK, dial, framed
from tests.support.running_service import Running, service, simulator
from tests.support.waiting import PATIENCE, until

CREATE: Final = "/chatcompletion.v1.ChatCompletionService/CreateChatCompletion"
STREAM: Final = "/chatcompletion.v1.ChatCompletionService/StreamChatCompletion"
WATCH: Final = "/grpc.health.v1.Health/Watch"
REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CALLERS: Final = (
    CREATE,
    STREAM,
    "/chatcompletion.v1.ModelService/ListModels",
    "/chatcompletion.v1.ModelService/GetModel",
    "/chatcompletion.v1.CreditService/GetCredits",
    "/chatcompletion.v1.ChatCompletionService/QuoteChatCompletion",
)
HEALTH: Final = (CHECK, WATCH)
MESSAGE: Final = CreateChatCompletionRequest(params=params("any")).SerializeToString()

INVALID_ARGUMENT: Final = grpc.StatusCode.INVALID_ARGUMENT.value[0]
UNAUTHENTICATED: Final = grpc.StatusCode.UNAUTHENTICATED.value[0]
UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE.value[0]
DEADLINE_EXCEEDED: Final = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
OK: Final = grpc.StatusCode.OK.value[0]


@asynccontextmanager
async def _service(**changes: Any) -> AsyncIterator[tuple[Running, SimulatorServer, Footprint]]:
    async with simulator() as upstream, service(["any"], upstream, **changes) as running:
        await running.client.create("any")
        await upstream.next_record()
        yield running, upstream, Footprint.take()


def _counted(running: Running, method: str, reason: str) -> float:
    return running.metric(
        "gen_ai_server_request_duration_seconds_count",
        rpc_method=method.rpartition("/")[2],
        gen_ai_request_model="unknown",
        error_type=reason,
    )


# ------------------------------------------------------------------------------------ no message


@pytest.mark.parametrize("method", [*CALLERS, *HEALTH])
async def test_a_call_without_a_message_is_refused_at_once(method: str) -> None:
    async with _service() as (running, upstream, before):
        async with dial(running.address) as raw:
            ended = await raw.ended(raw.begin(method, key=KEY))
            assert (ended.code, ended.message) == (
                INVALID_ARGUMENT,
                "The call has no request message.",
            )
            assert ended.reason == "invalid_value"
        if method in CALLERS:
            await running.rests()
            assert _counted(running, method, "INVALID_REQUEST") == 1
        assert len(upstream.records) == 1
        await before.returns()


@pytest.mark.parametrize("method", [*CALLERS, *HEALTH])
@pytest.mark.parametrize("sent", [b"", b"\x00\x00\x00", framed(MESSAGE)[:-1]])
async def test_a_message_that_does_not_arrive_is_waited_for_no_longer_than_a_call_takes(
    method: str, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method in HEALTH:
        monkeypatch.setattr(request_message, "LONGEST", 0.2)
    # Also the first call, which reaches the upstream, ends within this time on a busy machine.
    async with _service(request_timeout=0.5) as (running, upstream, before):
        async with dial(running.address) as raw:
            stream = raw.begin(method, end=False, key=KEY)
            if sent:
                raw.send(stream, sent)
            if method in CALLERS:
                await until(lambda: running.calls_in_flight == 1)
            ended = await raw.ended(stream)
            assert ended.code == INVALID_ARGUMENT
            assert ended.reason == "request_timeout"
        await running.rests()
        assert len(upstream.records) == 1
        await before.returns()


async def test_a_message_that_does_not_arrive_is_waited_for_until_the_deadline() -> None:
    async with _service() as (running, _, before):
        async with dial(running.address) as raw:
            stream = raw.begin(CREATE, end=False, key=KEY, timeout="200m")
            assert (await raw.ended(stream)).code == DEADLINE_EXCEEDED
        await running.rests()
        assert _counted(running, CREATE, "DEADLINE_EXCEEDED") == 1
        await before.returns()


async def test_calls_that_wait_for_their_message_count_against_the_bound() -> None:
    async with _service(max_concurrent_calls=3) as (running, _, before):
        async with dial(running.address) as raw:
            waiting = [raw.begin(CREATE, end=False, key=KEY) for _ in range(3)]
            await until(lambda: running.calls_in_flight == 3)
            failure = await running.client.refusal("any")
            assert failure.reason == "OVERLOADED"
            # Health checks have a separate limit.
            await watched(running.client, health_pb2.HealthCheckResponse.SERVING)
            raw.send(waiting[0], framed(MESSAGE), end=True)
            assert (await raw.ended(waiting[0])).code == OK
            await running.client.create("any")
        await running.rests()
        await before.returns()


@pytest.mark.alone
async def test_a_deluge_of_calls_without_a_message_leaves_the_memory_as_it_was() -> None:
    methods = (*CALLERS, *HEALTH)
    count = 6000
    async with service_process() as (running, caller):
        memory = 0
        for round_ in range(3):
            async with dial(await running.address()) as raw:
                for start in range(0, count, 100):
                    streams = [
                        raw.begin(methods[number % len(methods)], key=KEY if number % 2 else None)
                        for number in range(start, start + 100)
                    ]
                    ended = [await raw.ended(stream) for stream in streams]
                    assert {one.code for one in ended} <= {INVALID_ARGUMENT, UNAUTHENTICATED}
            if round_ == 0:
                memory = _resident(running.process.pid)
        assert _resident(running.process.pid) - memory < 8 * 1024 * 1024
        await watched(caller, health_pb2.HealthCheckResponse.SERVING)


def _resident(pid: int) -> int:
    """Return the memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("method", [CREATE, STREAM, CHECK])
async def test_a_call_that_is_cancelled_before_its_message_is_the_callers_affair(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with _service() as (running, upstream, before):
        async with dial(running.address) as raw:
            for number in range(300):
                raw.reset(raw.begin(method, end=bool(number % 3 == 1), key=KEY))
                if number % 7 == 0:
                    await asyncio.sleep(0)
            await watched(running.client, health_pb2.HealthCheckResponse.SERVING)
        await running.rests()
        assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]
        assert len(upstream.records) == 1
        await before.returns()


@pytest.mark.alone
async def test_messages_of_calls_that_end_meanwhile_are_freed() -> None:
    message = framed(bytes(60_000))  # fits the window of a stream
    async with service_process() as (running, _), dial(await running.address()) as raw:
        await raw.settled()
        memory = 0
        for round_ in range(8):
            for number in range(200):
                # The deadline passes before, while or after the message arrives.
                stream = raw.begin(CREATE, end=False, key=KEY, timeout=f"{1 + number % 3}m")
                await asyncio.sleep(number % 10 / 5000)
                for start in range(0, len(message), 16_000):
                    if not raw.is_over(stream):
                        raw.send(stream, message[start : start + 16_000])
                await raw.ended(stream)
            if round_ == 1:
                memory = _resident(running.process.pid)
        assert _resident(running.process.pid) - memory < 4 * 1024 * 1024


# ---------------------------------------------------------------------------- several, strangers


@pytest.mark.parametrize("method", [CREATE, STREAM])
async def test_several_messages_are_refused_and_nothing_is_sent_upstream(method: str) -> None:
    async with _service() as (running, upstream, before):
        async with dial(running.address) as raw:
            ended = await raw.ended(raw.begin(method, MESSAGE, MESSAGE, key=KEY))
            assert (ended.code, ended.message) == (
                INVALID_ARGUMENT,
                "The call has more than one request message.",
            )
            assert (await raw.ended(raw.begin(method, MESSAGE, key=KEY))).code == OK
        assert len(upstream.records) == 2
        await running.rests()
        await before.returns()


@pytest.mark.parametrize("method", CALLERS)
@pytest.mark.parametrize("key", [None, "sk-of-nobody"])
async def test_a_stranger_is_refused_before_the_message_is_there(
    method: str, key: str | None
) -> None:
    async with _service() as (running, _, before), dial(running.address) as raw:
        ended = await raw.ended(raw.begin(method, end=False, key=key))
        assert ended.code == UNAUTHENTICATED
        assert ended.reason == "invalid_api_key"
        await running.rests()
        assert _counted(running, method, "INVALID_API_KEY") == 1
    await before.returns()


async def test_a_stranger_with_a_large_message_is_told_the_same() -> None:
    large = params("any", messages=[{"role": "user", "content": "x" * 4_000_000}])
    async with _service() as (running, _, _), client(running.address, key=None) as caller:
        for streamed in (False, True):
            failure = await caller.refusal(large, streamed=streamed)
            assert failure.reason == "INVALID_API_KEY"


# ------------------------------------------------------------------------- health and reflection


async def test_watches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST_WATCHES", 3)
    async with _service() as (running, _, before):
        async with dial(running.address) as raw:
            watches = [raw.begin(WATCH, b"") for _ in range(3)]
            await until(lambda: all(raw.data(stream) for stream in watches))
            ended = await raw.ended(raw.begin(WATCH, b""))
            assert ended.code == UNAVAILABLE
            assert ended.reason == "overloaded"
            assert (await raw.ended(raw.begin(CHECK, b""))).code == OK
            await running.client.create("any")
            raw.reset(watches[0])
            await until(lambda: running.server.probes_in_flight == 2)
            await watched(running.client, health_pb2.HealthCheckResponse.SERVING)
        await until(lambda: running.server.probes_in_flight == 0)
        await before.returns()


async def test_watches_of_one_connection_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "MOST_WATCHES", 6)
    monkeypatch.setattr(probes, "MOST_WATCHES_OF_CONNECTION", 4)
    async with _service() as (running, _, before):
        async with dial(running.address) as stranger, dial(running.address) as other:
            watches = [stranger.begin(WATCH, b"") for _ in range(4)]
            await until(lambda: all(stranger.data(stream) for stream in watches))
            ended = await stranger.call(WATCH, b"")
            assert (ended.code, ended.reason) == (UNAVAILABLE, "overloaded")
            others = [other.begin(WATCH, b"") for _ in range(2)]
            await until(lambda: all(other.data(stream) for stream in others))
            assert not stranger.is_over(watches[0])
            others.append(other.begin(WATCH, b""))
            await until(lambda: other.data(others[2]) != b"")
            assert (await stranger.ended(watches[0])).reason == "overloaded"
            await running.client.create("any")
        await until(lambda: running.server.probes_in_flight == 0)
        await before.returns()


@pytest.mark.parametrize(
    ("method", "most", "refused"),
    # A further Check ends the oldest.
    [(CHECK, "MOST_CHECKS", 0), (REFLECTION, "MOST_REFLECTIONS", -1)],
)
async def test_questions_that_do_not_end_are_bounded(
    method: str, most: str, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, most, 3)
    monkeypatch.setattr(probes, "LONGEST", 0.3)
    async with _service() as (running, _, before):
        async with dial(running.address) as raw:
            waiting = [raw.begin(method, end=False) for _ in range(4)]
            endings = [(await raw.ended(stream)).reason for stream in waiting]
            assert endings.pop(refused) == "overloaded"
            assert endings == ["deadline_exceeded"] * 3
        await before.returns()


@pytest.mark.parametrize("message", [None, b""])
async def test_strangers_keep_nobody_from_asking_for_the_health(message: bytes | None) -> None:
    async with _service() as (running, _, before):
        async with dial(running.address, window=0) as raw:
            await raw.settled()
            for _ in range(2 * probes.MOST_CHECKS):
                raw.begin(CHECK, *(() if message is None else (message,)), end=message is not None)
            await until(lambda: running.server.probes_in_flight == probes.MOST_CHECKS)
            async with dial(running.address) as kubelet:
                assert (await kubelet.call(CHECK, b"")).code == OK
            await running.client.create("any")
        await until(lambda: running.server.probes_in_flight == 0)
        await before.returns()


async def _is_overloaded(caller: Client) -> bool:
    try:
        await caller.create("any")
    except grpc.aio.AioRpcError as error:
        return failed(error).reason == "OVERLOADED"
    return False


async def test_answers_that_nobody_reads_count_until_their_deadline() -> None:
    async with _service(max_concurrent_calls=3, request_timeout=1) as (running, upstream, before):
        async with dial(running.address, window=0) as raw:
            for method in (CREATE, STREAM, CREATE):
                raw.begin(method, MESSAGE, key=KEY)
            await until(lambda: len(upstream.records) == 4)
            assert (await running.client.refusal("any")).reason == "OVERLOADED"
            async with asyncio.timeout(PATIENCE):
                while await _is_overloaded(running.client):
                    pass
        await running.rests()
        await before.returns()


async def test_callers_who_do_not_read_hold_up_a_drain_no_longer_than_its_grace() -> None:
    async with (
        _service(drain_grace=0.5) as (running, upstream, _),
        dial(running.address, window=0) as raw,
    ):
        for method in (CREATE, STREAM, CHECK, WATCH):
            raw.begin(method, MESSAGE if method in CALLERS else b"", key=KEY)
        await until(lambda: len(upstream.records) == 3)
        await asyncio.wait_for(running.server.stop(), 5)


async def test_a_watcher_who_does_not_read_holds_up_nobody() -> None:
    async with _service() as (running, _, _), dial(running.address, window=0) as raw:
        watch = raw.begin(WATCH, b"")
        await until(lambda: running.server.probes_in_flight == 1)
        async with asyncio.timeout(10):
            await running.server.stop()
        assert (await raw.ended(watch)).code != OK


async def test_watchers_are_told_that_the_server_drains() -> None:
    async with _service() as (running, _, _), dial(running.address) as raw:
        watch = raw.begin(WATCH, b"")
        await until(lambda: raw.data(watch) != b"")
        await running.server.stop()
        ended = await raw.ended(watch)
        assert (ended.code, ended.reason) == (UNAVAILABLE, "draining")
        assert len(raw.data(watch)) > len(framed(b"\x08\x01"))


# ------------------------------------------------------------------------------------- operators


async def test_the_listener_of_operators_does_the_same(tmp_path: Path) -> None:
    listing = "/chatcompletion.v1.AccountService/ListAccounts"
    async with (
        admin(f"sqlite:///{tmp_path}/accounts.sqlite3") as house,
        dial(house.server.address) as raw,
    ):
        for method, key, code in (
            (listing, TOKEN, INVALID_ARGUMENT),
            (listing, None, UNAUTHENTICATED),
            (CHECK, None, INVALID_ARGUMENT),
        ):
            assert (await raw.ended(raw.begin(method, key=key))).code == code
        stranger = raw.begin(listing, end=False, key=KEY)
        assert (await raw.ended(stranger)).code == UNAUTHENTICATED
        assert (await raw.ended(raw.begin(listing, b"", key=TOKEN))).code == OK

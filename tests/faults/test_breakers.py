"""Upstreams that hang, fail or are away: they neither starve others nor are called for nothing.

places      60 calls that hang at one upstream leave another one alone; a full queue is OVERLOADED
breakers    failures in a row cut an upstream off, a probe lets it back in; one account alone does
            not cut it off while another is served
floods      300 callers, while the upstream hangs, is away or is busy, and when it is back
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from service.simulator import SimulatorServer
from service.simulator.exchange import Exchange
from tests.support.accounts_stack import accounts_stack
from tests.support.footprint import Footprint
from tests.support.grpc_client import Failed
from tests.support.priced_models import priced
from tests.support.running_service import Running, service, several, simulator
from tests.support.waiting import until

HANGS: Final = "sim-fault:hang-before-headers"
NEVER: Final = 3600.0
"""A pause in seconds that no test outlasts."""
MEBIBYTE: Final = 1024 * 1024


def state(running: Running, upstream: str = "upstream") -> str:
    """Return the state of the breaker, of which the metrics have exactly one."""
    metric = "chat_upstream_breaker_state"
    states = ("closed", "open", "half_open")
    found = [s for s in states if running.metric(metric, upstream=upstream, state=s)]
    assert len(found) == 1
    return found[0]


def calls(running: Running, kind: str, upstream: str = "upstream") -> float:
    return running.metric("chat_upstream_calls", upstream=upstream, state=kind)


# ----------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("streamed", [False, True])
async def test_calls_that_hang_at_one_upstream_leave_another_alone(streamed: bool) -> None:
    async with simulator() as sick, simulator() as sound:
        known = several(
            {"sick": sick, "sound": sound},
            {HANGS: {"upstream": "sick"}, "any": {"upstream": "sound"}},
        )
        async with service(known, upstream_max_connections=60, connect_timeout=NEVER) as running:
            start = running.client.start_stream if streamed else running.client.start_create
            hanging = [start(HANGS, deadline=NEVER) for _ in range(60)]
            await until(
                lambda: sick.open_requests == 30 and calls(running, "waiting", "sick") == 30
            )
            for _ in range(50):
                assert (await running.client.create("any")).choices
                assert calls(running, "waiting", "sound") == 0
            many = await asyncio.gather(*(running.client.collect("any") for _ in range(25)))
            assert all(each.failure is None for each in many)
            assert sick.open_requests == 30
            for call in hanging:
                call.cancel()
            await running.rests()
            assert (calls(running, "running", "sick"), calls(running, "waiting", "sick")) == (0, 0)
            assert state(running, "sick") == "closed"


async def test_a_full_queue_is_overloaded_at_once() -> None:
    limits: dict[str, Any] = {
        "upstream_max_calls": 2,
        "upstream_max_waiting": 1,
        "connect_timeout": NEVER,
    }
    async with simulator() as upstream, service([HANGS, "any"], upstream, **limits) as running:
        hanging = [running.client.start_create(HANGS, deadline=NEVER) for _ in range(2)]
        await until(lambda: upstream.open_requests == 2)
        waiting = asyncio.ensure_future(running.client.create("any"))
        await until(lambda: calls(running, "waiting") == 1)
        failure = await running.client.refusal("any")
        assert (failure.reason, failure.http_status) == ("OVERLOADED", 503)
        assert failure.retryable
        assert failure.retry_delay == 1.0
        assert len(upstream.records) == 2
        hanging[0].cancel()
        assert (await waiting).choices
        hanging[1].cancel()
        await running.rests()


async def test_nobody_waits_longer_than_the_connect_timeout() -> None:
    limits: dict[str, Any] = {"upstream_max_calls": 1, "connect_timeout": 0.1}
    async with simulator() as upstream, service([HANGS, "any"], upstream, **limits) as running:
        hanging = running.client.start_create(HANGS, deadline=NEVER)
        await until(lambda: upstream.open_requests == 1)
        assert (await running.client.refusal("any")).reason == "OVERLOADED"
        assert len(upstream.records) == 1
        hanging.cancel()
        await running.rests()


async def test_a_caller_who_leaves_the_queue_leaves_no_trace() -> None:
    limits: dict[str, Any] = {"upstream_max_calls": 1, "connect_timeout": NEVER}
    async with simulator() as upstream, service([HANGS, "any"], upstream, **limits) as running:
        hanging = running.client.start_create(HANGS, deadline=NEVER)
        await until(lambda: upstream.open_requests == 1)
        waiting = [running.client.start_create("any", deadline=NEVER) for _ in range(20)]
        await until(lambda: calls(running, "waiting") == 20)
        for call in waiting:
            call.cancel()
        await until(lambda: calls(running, "waiting") == 0)
        hanging.cancel()
        await running.rests()
        assert (await running.client.create("any")).choices


# --------------------------------------------------------------------------------------- breakers


async def opened(running: Running, fault: str = "sim-fault:500") -> None:
    """Let calls fail until the breaker opens."""
    for _ in range(5):
        assert state(running) == "closed"
        assert (await running.client.refusal(fault)).reason == "UPSTREAM_ERROR"
    await running.rests()
    assert state(running) == "open"


async def test_failures_in_a_row_cut_an_upstream_off() -> None:
    names = ["sim-fault:500", "any"]
    async with simulator() as upstream, service(names, upstream, breaker_pause=40.0) as running:
        await opened(running)
        for streamed in (False, True):
            failure = await running.client.refusal("any", streamed=streamed)
            assert (failure.reason, failure.http_status) == ("OVERLOADED", 503)
            assert failure.retryable
            assert not failure.is_final
            assert failure.retry_delay is not None
            assert 10 < failure.retry_delay <= 40
            assert "'any'" in failure.message
        assert len(upstream.records) == 5


async def test_one_account_does_not_cut_an_upstream_off_from_another() -> None:
    entries = {"any": priced(), "bad": priced(upstream_model="sim-fault:500")}
    async with accounts_stack(entries, breaker_failures=5) as stack:
        victim, attacker = stack.books.team(), stack.books.team()
        for _ in range(3):
            assert (await stack.ask("grpc", victim.key, "any")).code == ""
            for _ in range(8):
                answer = await stack.ask("grpc", attacker.key, "bad")
                assert answer.code == "upstream_error"
        assert (await stack.ask("grpc", victim.key, "any")).code == ""


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_probe_lets_it_back_in(streamed: bool) -> None:
    names = ["sim-fault:500", "any"]
    async with simulator() as upstream, service(names, upstream, breaker_pause=0.05) as running:
        await opened(running)
        await asyncio.sleep(0.06)
        if streamed:
            assert (await running.client.collect("any")).failure is None
        else:
            assert (await running.client.create("any")).choices
        await running.rests()
        assert state(running) == "closed"
        await asyncio.gather(*(running.client.create("any") for _ in range(10)))


async def test_a_probe_that_fails_is_alone() -> None:
    names = ["sim-fault:500", HANGS, "any"]
    async with simulator() as upstream, service(names, upstream, breaker_pause=0.05) as running:
        await opened(running)
        await asyncio.sleep(0.06)
        probe = running.client.start_create(HANGS, deadline=NEVER)
        await until(lambda: upstream.open_requests == 1)
        assert state(running) == "half_open"
        assert {(await running.client.refusal("any")).reason for _ in range(10)} == {"OVERLOADED"}
        probe.cancel()  # says nothing, so that the next call is the probe
        await until(lambda: upstream.open_requests == 0)
        await running.rests()
        assert (await running.client.create("any")).choices
        assert state(running) == "closed"


async def test_a_stream_that_has_begun_ends_the_probe() -> None:
    half = "sim-fault:hang-mid-stream"
    names = ["sim-fault:500", half, "any"]
    async with simulator() as upstream, service(names, upstream, breaker_pause=0.05) as running:
        await opened(running)
        await asyncio.sleep(0.06)
        probe = running.client.start_stream(half, deadline=NEVER)
        await probe.read()
        await until(lambda: state(running) == "closed")
        assert (await running.client.create("any")).choices
        probe.cancel()
        await running.rests()


@pytest.mark.parametrize("fault", ["400", "422", "429", "401", "404", "403", "413"])
async def test_refusals_do_not_cut_it_off(fault: str) -> None:
    model = f"sim-fault:{fault}"
    async with simulator() as upstream, service([model, "any"], upstream) as running:
        for _ in range(25):
            await running.client.refusal(model)
        assert state(running) == "closed"
        assert (await running.client.create("any")).choices


async def test_callers_who_leave_do_not_cut_it_off() -> None:
    async with simulator() as upstream, service([HANGS, "any"], upstream) as running:
        hanging = [running.client.start_create(HANGS, deadline=NEVER) for _ in range(25)]
        await until(lambda: upstream.open_requests == 25)
        for call in hanging:
            call.cancel()
        await running.rests()
        assert state(running) == "closed"
        assert (await running.client.create("any")).choices


async def test_deadlines_in_silence_cut_it_off() -> None:
    limits: dict[str, Any] = {"first_byte_timeout": 0.05, "breaker_pause": NEVER}
    async with simulator() as upstream, service([HANGS], upstream, **limits) as running:
        for _ in range(50):  # on a busy machine, a deadline can pass before the request is sent
            if state(running) == "open":
                break
            failure = await running.client.refusal(HANGS, deadline=0.5)
            assert failure.reason in ("", "DEADLINE_EXCEEDED")  # gRPC's own clock can be first
            await running.rests()
        assert state(running) == "open"
        assert len(upstream.records) >= 5  # more if a deadline passed soon after the request


async def test_those_who_wait_are_refused_when_it_is_cut_off() -> None:
    limits: dict[str, Any] = {
        "upstream_max_calls": 5,
        "connect_timeout": NEVER,
        "first_byte_timeout": 0.2,
        "breaker_pause": NEVER,
    }
    async with simulator() as upstream, service([HANGS], upstream, **limits) as running:
        failures = await asyncio.gather(
            *(running.client.refusal(HANGS, streamed=True) for _ in range(50))
        )
        reasons = Counter(failure.reason for failure in failures)
        assert reasons.keys() == {"UPSTREAM_TIMEOUT", "OVERLOADED"}
        assert reasons["UPSTREAM_TIMEOUT"] == len(upstream.records) < 10
        assert (calls(running, "running"), calls(running, "waiting")) == (0, 0)


# ----------------------------------------------------------------------------------------- floods


class Moody(SimulatorServer):
    """An upstream that is well, busy or hangs, as a test chooses."""

    mood = "well"
    requests = 0

    async def respond(self, exchange: Exchange) -> None:
        """Write the response to one request, or none."""
        self.requests += 1
        if self.mood == "hangs":
            await asyncio.Event().wait()
        if self.mood == "busy":
            exchange.reply(503, b"{}")
            return
        await super().respond(exchange)


CALLERS: Final = 300
ROUNDS: Final = 5
MOODS: Final = {
    # How the upstream is, and the reasons that callers can get.
    "hangs": {"UPSTREAM_TIMEOUT", "OVERLOADED"},
    "away": {"UPSTREAM_UNAVAILABLE", "OVERLOADED"},
    "busy": {"UPSTREAM_UNAVAILABLE", "OVERLOADED"},
}


def resident() -> int:
    """Return the memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@asynccontextmanager
async def in_mood(upstream: Moody, mood: str) -> AsyncIterator[None]:
    """Put an upstream into a mood for the block."""
    if mood == "away":
        port = upstream.port
        await upstream.stop()
        yield
        again = await Moody.start(port=port)
        upstream._server, upstream._connections = again._server, again._connections
        return
    upstream.mood = mood
    yield
    upstream.mood = "well"


@pytest.mark.alone
@pytest.mark.time_limit(180)
@pytest.mark.parametrize("mood", MOODS)
async def test_a_flood_while_an_upstream_is_ill(mood: str) -> None:
    """Bounded memory, prompt refusals, at most 1.2 requests per call, recovery without restart."""
    limits: dict[str, Any] = {"breaker_pause": 0.3}
    if mood == "hangs":
        limits |= {"first_byte_timeout": 0.3, "connect_timeout": 1.0}
    async with await Moody.start() as upstream, service(["any"], upstream, **limits) as running:
        await asyncio.gather(*(running.client.collect("any") for _ in range(CALLERS)))
        await running.rests()
        upstream.records.clear()
        before, memory, upstream.requests = Footprint.take(), resident(), 0
        failures: list[Failed] = []

        async def call() -> None:
            for _ in range(ROUNDS):
                failures.append(await running.client.refusal("any", streamed=True))
                await asyncio.sleep(0.05)

        async with in_mood(upstream, mood):
            async with asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(call())
            await running.rests()
            reasons = Counter(failure.reason for failure in failures)
            assert reasons.keys() <= MOODS[mood]
            # All but the first calls and the probes are refused without a request.
            assert reasons["OVERLOADED"] > len(failures) / 2
            reached = len(failures) - reasons["OVERLOADED"]
            attempts = reached + running.metric("chat_upstream_retries_total")
            assert attempts <= 1.2 * reached
            assert upstream.requests <= attempts
            assert resident() - memory < 64 * MEBIBYTE
            await before.returns()

        async def recovered() -> None:
            for _ in range(1000):
                if (await running.client.collect("any")).failure is None:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("the upstream is back, and calls still fail")

        await asyncio.gather(*(recovered() for _ in range(CALLERS)))
        assert state(running) == "closed"

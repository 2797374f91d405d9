"""When the service retries at the upstream, and that it repeats the same request.

could not connect                   once more
429, 503 with a Retry-After         once more after that wait, if it fits
503 without one                     once more, after half a second
anything else                       never
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import socket
from typing import Any

import pytest

from service.simulator import SimulatorServer
from service.upstream import retries as upstream_module
from service.upstream.retries import delay
from tests.support.footprint import Footprint
from tests.support.grpc_client import params
from tests.support.running_service import service, simulator
from tests.support.waiting import until

SOON = 0.001
"""The minimum Retry-After, in seconds."""


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", ["429", "503"])
async def test_a_wait_that_fits_is_waited_out_once(status: str, streamed: bool) -> None:
    model = f"sim-fault:{status}-retry-after={SOON},times=1"
    request = params(model, seed=2**60, vendor={"b": 1.0, "a": [None]}, logit_bias={"9": 1, "1": 2})
    async with simulator() as upstream, service([model], upstream) as running:
        if streamed:
            result = await running.client.collect(request)
            assert result.failure is None
            assert result.text
        else:
            assert (await running.client.create(request)).choices
        first, second = upstream.records[0], upstream.records[1]
        assert (first.status, second.status) == (int(status), 200)
        assert first.body == second.body
        assert first.headers == second.headers
        assert len(upstream.records) == 2
        await running.rests()
        assert running.metric("chat_upstream_retries_total") == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_second_refusal_is_the_callers(streamed: bool) -> None:
    model = f"sim-fault:429-retry-after={SOON},times=2"
    async with simulator() as upstream, service([model], upstream) as running:
        failure = await running.client.refusal(model, streamed=streamed)
        assert failure.reason == "UPSTREAM_RATE_LIMITED"
        assert failure.retryable
        assert not failure.is_final
        assert len(upstream.records) == 2


@pytest.mark.parametrize(
    "fault",
    [
        *("400", "401", "404", "422", "429", "500", "502", "504", "200-html", "200-error"),
        *("close-before-headers", "reset-before-headers", "truncated-body", "no-http", "204"),
    ],
)
async def test_what_the_upstream_may_have_worked_for_is_not_sent_again(fault: str) -> None:
    model = f"sim-fault:{fault},times=1"
    async with simulator() as upstream, service([model], upstream) as running:
        await running.client.refusal(model)
        assert len(upstream.records) == 1


@pytest.mark.parametrize(
    "fault", ["clean-end-mid-stream", "reset-mid-stream", "error-event-first", "500"]
)
async def test_a_stream_that_began_is_not_begun_again(fault: str) -> None:
    model = f"sim-fault:{fault},times=1"
    async with simulator() as upstream, service([model], upstream) as running:
        assert (await running.client.collect(model)).failure is not None
        assert len(upstream.records) == 1


@pytest.mark.parametrize(
    ("asked", "told"),
    [("30", 30.0), ("7.5", 7.5), ("120", 120.0), ("86400", 120.0)],
)
async def test_a_longer_wait_is_the_callers_to_wait(asked: str, told: float) -> None:
    model = f"sim-fault:429-retry-after={asked},times=1"
    async with simulator() as upstream, service([model], upstream) as running:
        failure = await running.client.refusal(model)
        assert failure.reason == "UPSTREAM_RATE_LIMITED"
        assert failure.retry_delay == told
        assert len(upstream.records) == 1


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    model = "sim-fault:429-retry-after=4,times=1"
    async with simulator() as upstream, service([model], upstream) as running:
        failure = await running.client.refusal(model, deadline=3)
        assert failure.reason == "UPSTREAM_RATE_LIMITED"
        assert failure.retry_delay == 4.0
        assert len(upstream.records) == 1


async def test_a_caller_who_leaves_ends_the_wait() -> None:
    model = "sim-fault:429-retry-after=4,times=1"
    async with simulator() as upstream, service([model, "any"], upstream) as running:
        await running.client.create("any")
        await upstream.next_record()
        before = Footprint.take()
        call = running.client.start_create(model)
        record = await upstream.next_record()
        await record.ended.wait()
        call.cancel()
        await running.rests()
        await before.returns()
        assert len(upstream.records) == 2


async def test_retries_are_a_fifth_of_the_requests() -> None:
    model = f"sim-fault:429-retry-after={SOON}"
    calls = 30
    async with simulator() as upstream, service([model], upstream) as running:
        failures = await asyncio.gather(*(running.client.refusal(model) for _ in range(calls)))
        assert {failure.reason for failure in failures} == {"UPSTREAM_RATE_LIMITED"}
        retries = len(upstream.records) - calls
        # Ten initially, and one for every five requests.
        assert 10 <= retries <= 10 + calls / 5


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_upstream_that_refuses_and_then_accepts(
    monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
    started: list[asyncio.Task[SimulatorServer]] = []

    def listen_then_delay(asked: float, **limits: Any) -> float | None:
        # The upstream starts during the wait before the retry.
        started.append(asyncio.ensure_future(SimulatorServer.start(port=port)))
        assert delay(asked, **limits) is not None
        return 0.2

    monkeypatch.setattr(upstream_module, "delay", listen_then_delay)
    async with service(["any"], f"http://127.0.0.1:{port}") as running:
        if streamed:
            assert (await running.client.collect("any")).failure is None
        else:
            await running.client.create("any")
        (starting,) = started
        async with await starting as upstream:
            assert len(upstream.records) == 1
            assert json.loads(upstream.records[0].body)["model"] == "any"
            await running.rests()
            assert running.metric("chat_upstream_retries_total") == 1


async def test_an_idle_connection_that_the_upstream_closed_is_not_an_error() -> None:
    names = ["any", "sim-fault:body-overrun"]
    async with simulator() as upstream, service(names, upstream) as running:
        # Bytes after the body make the connection unusable for another request.
        await running.client.create("sim-fault:body-overrun")
        await running.client.create("any")
        await running.client.create("any")
        for connection in list(upstream._connections):
            connection.transport.close()
        await until(lambda: upstream.open_connections == 0)
        await running.client.create("any")
        assert len(upstream.records) == 4

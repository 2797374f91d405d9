"""When the service retries at the upstream, and that it repeats the same request.

could not connect                   once more
429, 503 with a Retry-After         once more after that wait, if it fits
503 without one                     once more, after half a second
an idle connection was lost         once more, on a new one, by each call
anything else                       never
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from service.models_document import catalogue
from service.simulator import SimulatorServer
from service.upstream import retries as upstream_module
from service.upstream.retries import delay
from tests.support.footprint import Footprint
from tests.support.grpc_client import params
from tests.support.priced_models import priced
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


@asynccontextmanager
async def forgetful_server(crowd: int) -> AsyncIterator[tuple[str, list[int]]]:
    """Run an upstream that answers the first request on each connection, and loses the second.

    The first answers wait for all of the crowd, so that each call has a connection of its own.

    Yields:
        The base URL, and the number of requests on each connection.
    """
    served: list[int] = []
    everyone = asyncio.Event()
    answer = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(served)
        served.append(0)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                size = int(request.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(size)
                served[number] += 1
                if served[number] > 1:
                    break
                if len(served) >= crowd:
                    everyone.set()
                await everyone.wait()
                writer.write(head % len(answer) + answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", served


async def test_a_crowd_whose_idle_connections_are_lost_does_not_notice() -> None:
    """Neither the budget of retries nor the breaker counts them: the upstream is well."""
    crowd = 40
    async with forgetful_server(crowd) as (url, served):
        known = catalogue(
            {
                "upstreams": {"main": {"base_url": url, "keepalive": 3600}},
                "models": {"m": {**priced(), "upstream": "main"}},
            },
            {},
        )
        async with service(known, breaker_failures=5) as running:
            for _ in range(2):
                await asyncio.gather(*(running.client.create("m") for _ in range(crowd)))
            lost = served.count(2)
            assert lost > crowd // 2
            assert sum(served) == 2 * crowd + lost
            assert running.metric("chat_upstream_retries_total") == lost
            state = running.metric("chat_upstream_breaker_state", upstream="main", state="closed")
            assert state == 1
            await running.rests()

"""Services that close, drain or start late, over sockets: which one is called, and the results.

client -> HTTP -> bridge -> gRPC -> first
                         -> gRPC -> second     one target names both
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from restbridge.server import Bridge
from service.simulator import SimulatorServer
from tests.support import running_service
from tests.support.bridge_pair import REQUEST, STREAMED, Pair, bridge_to, bridged
from tests.support.fake_service import FakeService, chunk, serve
from tests.support.grpc_client import KEY, watched
from tests.support.running_bridge import PATH, bridge
from tests.support.stack import HELLO
from tests.support.waiting import PATIENCE, until, wait

NOT_SERVING = HealthCheckResponse.NOT_SERVING


# --------------------------------------------------------------------------------------- cancelled


@pytest.mark.parametrize("taken", [False, True])
async def test_a_call_that_others_cancel_is_retried_unless_the_service_took_it(
    *, taken: bool
) -> None:
    async with bridged() as pair:

        async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
            if taken:
                await context.send_initial_metadata((("x-request-id", "r"),))
            await context.abort(grpc.StatusCode.CANCELLED, "")
            raise AssertionError

        pair.service.create = create
        response = await pair.http.post(PATH, json=REQUEST)

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "service_unavailable"
    assert response.headers["x-should-retry"] == ("false" if taken else "true")
    assert response.headers.get("retry-after") == (None if taken else "1")


async def test_a_call_that_its_caller_leaves_is_cancelled_as_ever() -> None:
    async with bridged() as pair:

        async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
            await asyncio.Event().wait()
            raise AssertionError

        pair.service.create = create
        asking = asyncio.create_task(pair.http.post(PATH, json=REQUEST))
        await wait(pair.service.begun)
        asking.cancel()
        await wait(pair.service.cancelled)
        labels = {
            "http_request_method": "POST",
            "http_route": PATH,
            "http_response_status_code": "499",
            "error_type": "CANCELLED",
        }
        sample = "http_server_request_duration_seconds_count"
        await until(lambda: pair.metric(sample, **labels) == 1)


async def test_calls_that_meet_a_listener_while_it_closes_are_retryable() -> None:
    seen: Counter[tuple[int, str | None]] = Counter()
    for before in range(4):
        async with bridged() as pair:
            seen += await _asked_while_closing(pair, before)

    assert set(seen) <= {(200, None), (503, "true")}
    assert seen[503, "true"] > 0


async def _asked_while_closing(pair: Pair, before: int) -> Counter[tuple[int, str | None]]:
    """Send requests in a loop, and close the service after some responses."""
    go_on = asyncio.Event()
    seen: Counter[tuple[int, str | None]] = Counter()

    async def stream(
        params: ChatCompletionParams, context: Any
    ) -> AsyncIterator[ChatCompletionChunk]:
        yield chunk("a")
        await go_on.wait()

    async def ask() -> None:
        for _ in range(8):
            response = await pair.http.post(PATH, json=REQUEST)
            seen[response.status_code, response.headers.get("x-should-retry")] += 1

    pair.service.stream = stream  # keeps the connection open
    open_stream = asyncio.create_task(pair.http.post(PATH, json=STREAMED))
    await wait(pair.service.begun)
    asking = [asyncio.create_task(ask()) for _ in range(20)]
    await until(lambda: seen.total() >= before)
    closing = asyncio.create_task(pair.service.server.stop(PATIENCE))
    await asyncio.gather(*asking)
    go_on.set()
    await asyncio.gather(open_stream, closing)
    return seen


# ------------------------------------------------------------------------------------------ health


@dataclass(frozen=True, kw_only=True, slots=True)
class Replica:
    """A service with its own upstream."""

    upstream: SimulatorServer
    service: running_service.Running

    @property
    def asked(self) -> int:
        """The number of completions that were requested."""
        return len(self.upstream.records)


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[list[Replica]]:
    """Run several services."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            upstream = await stack.enter_async_context(running_service.simulator())
            service = await stack.enter_async_context(running_service.service(upstream=upstream))
            made.append(Replica(upstream=upstream, service=service))
        yield made


@asynccontextmanager
async def draining(*found: Replica) -> AsyncIterator[None]:
    """Make services drain: NOT_SERVING, but still serving calls."""
    stopping = [asyncio.create_task(each.service.server.stop(delay=PATIENCE)) for each in found]
    for each in found:
        await watched(each.service.client, NOT_SERVING)
    try:
        yield
    finally:
        for each in found:
            each.service.server.hurry()
        await asyncio.gather(*stopping)


def target(found: Sequence[Replica]) -> str:
    return "ipv4:" + ",".join(each.service.address for each in found)


async def ask(door: Bridge, times: int) -> Counter[int]:
    """Request completions and return the statuses."""
    headers = {"authorization": f"Bearer {KEY}"}
    base = f"http://{door.address}"
    async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as http:
        return Counter(
            [
                (await http.post(PATH, json={"model": "default", "messages": HELLO})).status_code
                for _ in range(times)
            ]
        )


async def test_a_replica_that_drains_is_not_asked() -> None:
    async with replicas(2) as found, draining(found[0]), bridge(target(found)) as door:
        statuses = await ask(door, 40)

    assert statuses == {200: 40}
    assert [each.asked for each in found] == [0, 40]


@pytest.mark.parametrize("form", ["{}", "dns:///{}", "ipv4:{}"])
async def test_the_only_replica_is_asked_while_it_drains(form: str) -> None:
    async with replicas(1) as [only], bridge(form.format(only.service.address)) as door:
        before = await ask(door, 1)
        async with draining(only):
            statuses = await ask(door, 40)
            async with httpx.AsyncClient(trust_env=False) as http:
                ready = await http.get(f"http://{door.address}/readyz")

    assert (before, statuses) == ({200: 1}, {200: 40})
    assert ready.status_code == 503


async def test_all_replicas_are_asked() -> None:
    async with replicas(2) as found, bridge(target(found)) as door:
        async with asyncio.timeout(PATIENCE):  # the bridge calls a replica when it is SERVING
            while not all(each.asked for each in found):
                assert await ask(door, 1) == {200: 1}
        before = [each.asked for each in found]
        assert await ask(door, 40) == {200: 40}

    assert [each.asked - asked for each, asked in zip(found, before, strict=True)] == [20, 20]


async def test_replicas_that_all_drain_are_asked() -> None:
    async with replicas(2) as found, bridge(target(found)) as door:
        assert await ask(door, 1) == {200: 1}
        async with draining(*found):
            assert await ask(door, 40) == {200: 40}


async def test_a_replica_that_comes_late_is_found() -> None:
    fake = FakeService()
    async with serve(fake):
        pass
    address = fake.address
    async with bridge_to(fake, CHAT_SERVICE_TARGET=f"ipv4:{address}") as pair:
        response = await pair.http.post(PATH, json=REQUEST)
        assert response.status_code == 503
        assert response.headers["x-should-retry"] == "true"
        async with serve(fake, address=address), asyncio.timeout(PATIENCE):
            while (await pair.http.get("/readyz")).status_code != 200:
                await pair.http.get("/healthz")
            await pair.works()


async def test_a_bridge_that_watches_a_replica_does_not_hold_up_its_end() -> None:
    async with replicas(1) as [only], bridge(target([only])) as door:
        assert await ask(door, 1) == {200: 1}
        async with asyncio.timeout(PATIENCE):  # calls have the grace and more
            await only.service.server.stop(delay=0)

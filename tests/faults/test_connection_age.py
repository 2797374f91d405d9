"""Connections that the service ends by age, under constant load: no call fails.

callers -> gRPC                    -> a service with a short CHAT_MAX_CONNECTION_AGE
        -> REST -> bridge -> gRPC  -> the same
        -> gRPC -> Envoy -> gRPC   -> the same
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import pytest

from service.simulator import SimulatorServer
from tests.support.asking import document
from tests.support.envoy import envoy
from tests.support.grpc_client import KEY, Client, client
from tests.support.raw_http2 import dial
from tests.support.running_bridge import PATH, bridge
from tests.support.running_service import service, simulator
from tests.support.waiting import PATIENCE

CALLERS = 8
MANY = 1_000_000
NAME = "sim:ttft=0.01,itd=0.01,tokens=5"

Ask = Callable[[bool], Awaitable[str]]
"""Makes a call, streamed or not, and returns "OK" or the failure."""


def _over_grpc(caller: Client) -> Ask:
    async def ask(streamed: bool) -> str:
        if not streamed:
            await caller.create(NAME)
            return "OK"
        failure = (await caller.collect(NAME)).failure
        return "OK" if failure is None else str(failure)

    return ask


def _over_rest(http: httpx.AsyncClient) -> Ask:
    async def ask(streamed: bool) -> str:
        body = document(NAME, stream=streamed)
        response = await http.post(PATH, json=body, headers={"authorization": f"Bearer {KEY}"})
        is_whole = response.is_success and (not streamed or "data: [DONE]" in response.text)
        return "OK" if is_whole else f"{response.status_code} {response.text}"

    return ask


async def _call_until(over: asyncio.Event, ask: Ask, seen: Counter[str]) -> None:
    streamed = False
    while not over.is_set():
        streamed = not streamed
        seen[await ask(streamed)] += 1


async def _door(name: str, address: str, stack: AsyncExitStack) -> Ask:
    if name == "rest":
        door = await stack.enter_async_context(bridge(address))
        base = f"http://{door.address}"
        http = httpx.AsyncClient(base_url=base, trust_env=False, timeout=PATIENCE)
        return _over_rest(await stack.enter_async_context(http))
    if name == "envoy":
        address = (await stack.enter_async_context(envoy(address))).address
    return _over_grpc(await stack.enter_async_context(client(address)))


@pytest.mark.parametrize("name", ["grpc", "rest", "envoy"])
async def test_no_call_fails_when_connections_end_by_age(name: str) -> None:
    seen: Counter[str] = Counter()
    over = asyncio.Event()
    upstream: SimulatorServer
    async with (
        simulator(records_kept=MANY) as upstream,
        service([NAME], upstream, max_connection_age=1.0) as running,
        AsyncExitStack() as stack,
    ):
        ask = await _door(name, running.address, stack)
        callers = [asyncio.create_task(_call_until(over, ask, seen)) for _ in range(CALLERS)]
        try:
            for _ in range(3):  # connections of the callers end meanwhile too
                async with dial(running.address) as watch, asyncio.timeout(PATIENCE):
                    await watch.goaway.wait()
        finally:
            over.set()
            await asyncio.gather(*callers)
        assert seen == {"OK": len(upstream.records)}
        await running.rests()

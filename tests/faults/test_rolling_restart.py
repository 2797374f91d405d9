"""Two replicas behind a real Envoy are restarted in turn, under constant load.

callers -> Envoy -> replica, replica -> upstream

Every call succeeds, and the upstream receives each of them once. `make test-restarts` restarts the
replicas 20 times instead of twice, with health checks every second and every 10 s.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import os
import signal
import socket
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import grpc
import pytest

from service.simulator import SimulatorServer
from tests.support.envoy import Envoy, envoy
from tests.support.grpc_client import Client, client, failed
from tests.support.processes import Process, service_process
from tests.support.running_service import simulator
from tests.support.waiting import PATIENCE, until

ROUNDS: Final = int(os.environ.get("RESTARTS", "2"))
"""How often each replica is restarted."""
INTERVALS: Final = (1.0, 10.0) if "RESTARTS" in os.environ else (0.2,)
"""Seconds between two health checks."""
CALLERS: Final = 6
MANY: Final = 1_000_000
BETWEEN: Final = 20
"""The number of calls between two restarts."""


class Replica:
    """A service that can be started again at the same address."""

    def __init__(self, upstream: SimulatorServer, delay: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._variables = {
            "CHAT_LISTEN": self.address,
            "CHAT_UPSTREAM_BASE_URL": upstream.base_url,
            "CHAT_DRAIN_DELAY": str(delay),
            "CHAT_DRAIN_GRACE": "10",
        }
        self._life = AsyncExitStack()
        self._process: Process

    async def start(self) -> None:
        """Start, and return when it is SERVING."""
        running = service_process(**self._variables)
        self._process, _ = await self._life.enter_async_context(running)

    async def stop(self) -> None:
        """Drain, and return when the process has ended."""
        self._process.send(signal.SIGTERM)
        assert await self._process.exit_status() == 0, self._process.lines
        await self.kill()

    async def kill(self) -> None:
        """End the process if it runs."""
        await self._life.aclose()
        self._life = AsyncExitStack()


async def _calls(caller: Client, outcomes: Counter[str], over: asyncio.Event) -> None:
    streamed = False
    while not over.is_set():
        streamed = not streamed
        outcomes[await _outcome(caller, streamed)] += 1


async def _outcome(caller: Client, streamed: bool) -> str:
    try:
        if not streamed:
            await caller.create("default", deadline=PATIENCE)
            return "OK"
        failure = (await caller.collect("default", deadline=PATIENCE)).failure
    except grpc.aio.AioRpcError as error:
        failure = failed(error)
    return "OK" if failure is None else f"{failure.code.name} {failure.reason} {failure.message}"


def _reached(outcomes: Counter[str], enough: int) -> bool:
    return outcomes["OK"] >= enough


async def _healthy(proxy: Envoy, count: int) -> None:
    async with asyncio.timeout(2 * PATIENCE):
        while await proxy.counter("membership_healthy") != count:
            pass


@pytest.mark.alone
@pytest.mark.time_limit(300 + 120 * ROUNDS)
@pytest.mark.parametrize("interval", INTERVALS)
async def test_a_rolling_restart_fails_no_call_and_doubles_none(interval: float) -> None:
    outcomes: Counter[str] = Counter()
    over = asyncio.Event()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(
            simulator(time_to_first_token=0.02, inter_token_delay=0.002, records_kept=MANY)
        )
        # Envoy notices the drain within its delay, also if a check takes its whole timeout of 1 s.
        replicas = [Replica(upstream, delay=max(2.0, 1.0 + 1.5 * interval)) for _ in range(2)]
        for replica in replicas:
            stack.push_async_callback(replica.kill)
            await replica.start()
        proxy = await stack.enter_async_context(
            envoy(
                *(replica.address for replica in replicas),
                health_interval=interval,
            )
        )
        await _healthy(proxy, 2)
        caller = await stack.enter_async_context(client(proxy.address))
        callers = [asyncio.create_task(_calls(caller, outcomes, over)) for _ in range(CALLERS)]
        try:
            for replica in replicas * ROUNDS:
                enough = outcomes["OK"] + BETWEEN
                await until(partial(_reached, outcomes, enough))
                await replica.stop()
                await replica.start()
                await _healthy(proxy, 2)
        finally:
            over.set()
            await asyncio.gather(*callers)
        assert outcomes == {"OK": len(upstream.records)}
        print(f"{ROUNDS} rolling restarts, checks every {interval} s: {outcomes}")  # noqa: T201

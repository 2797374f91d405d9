"""Many connections, many calls of one key, and pings without an end: others are served.

10,000 idle connections          the bridge serves the next one's request
no descriptor for a connection   OVERLOADED, never the upstream's fault, and served again later
a flood of one key's calls       another key's calls take as many turns as without it
pings faster than allowed        that connection ends, others do not
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionRequest
from tests.support.accounts_stack import accounts_stack
from tests.support.asking import HELLO
from tests.support.grpc_client import KEY, client, params, serving
from tests.support.priced_models import priced
from tests.support.processes import Process, environment, process, run, service_process
from tests.support.raw_http2 import dial
from tests.support.running_bridge import PATH
from tests.support.running_service import service, simulator
from tests.support.waiting import until

IDLE: Final = 10_000
MOST_OF_ONE: Final = 24 * 1024
"""Maximum memory of an idle connection in the bridge, in bytes."""
STREAM: Final = "/chatcompletion.v1.ChatCompletionService/StreamChatCompletion"


@contextmanager
def _descriptors(count: int) -> Iterator[None]:
    """Raise this process's limit of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"the limit of descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _resident(running: Process) -> int:
    text = Path(f"/proc/{running.process.pid}/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


@pytest.mark.alone
async def test_ten_thousand_idle_connections_leave_room_for_others() -> None:
    with _descriptors(IDLE + 1000):
        async with (
            service_process() as (inner, _),
            process(
                "restbridge",
                {
                    "CHAT_SERVICE_TARGET": await inner.address(),
                    "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
                    "CHAT_BRIDGE_METRICS_LISTEN": "none",
                    "CHAT_BRIDGE_MAX_CONNECTIONS": str(IDLE + 10),
                },
            ) as bridge,
        ):
            address = await bridge.address()
            host, _, port = address.rpartition(":")
            before = _resident(bridge)
            idle: list[asyncio.StreamWriter] = []
            for _ in range(IDLE // 100):
                opened = (asyncio.open_connection(host, int(port)) for _ in range(100))
                idle += [writer for _, writer in await asyncio.gather(*opened)]
            async with httpx.AsyncClient(
                base_url=f"http://{address}", trust_env=False, timeout=20
            ) as web:
                answer = await web.post(
                    PATH,
                    json={"model": "default", "messages": HELLO},
                    headers={"authorization": f"Bearer {KEY}"},
                )
            assert answer.status_code == 200
            assert len(idle) == IDLE
            assert (_resident(bridge) - before) / IDLE < MOST_OF_ONE
            for writer in idle:
                writer.close()


async def test_without_descriptors_a_call_is_refused_as_our_overload() -> None:
    limit = 60
    command = f"ulimit -n {limit}; exec {sys.executable} -m service"
    async with simulator() as upstream:
        variables = environment(CHAT_UPSTREAM_BASE_URL=upstream.base_url + "/v1")
        async with run(("bash", "-c", command), variables) as running:
            address = await running.address()
            host, _, port = address.rpartition(":")
            async with client(address) as caller:
                await serving(caller)
                folder = f"/proc/{running.process.pid}/fd"
                with ExitStack() as strangers:
                    while len(os.listdir(folder)) < limit:
                        _, writer = await asyncio.open_connection(host, int(port))
                        strangers.callback(writer.close)
                    failure = await caller.refusal("default")
                    assert (failure.reason, failure.http_status) == ("OVERLOADED", 503)
                    assert failure.retryable
                    assert not upstream.records
                await until(lambda: len(os.listdir(folder)) < limit)
                await caller.create("default")
            running.send(signal.SIGTERM)
            assert await running.exit_status() == 0


async def test_a_flood_of_one_key_takes_no_turns_of_another() -> None:
    callers, calls, most_rounds = 40, 20, 25
    entries = {
        "default": priced(),
        "slow": priced(upstream_model="sim-fault:hang-before-headers"),
    }
    async with accounts_stack(entries) as stack:
        one, other = stack.books.team(concurrency=2), stack.books.team()
        held = [asyncio.ensure_future(stack.ask("grpc", one.key, "slow")) for _ in range(2)]
        await until(lambda: len(stack.upstream.records) == 2)
        refused = 0
        over = asyncio.Event()

        async def flood() -> None:
            nonlocal refused
            while not over.is_set():
                answer = await stack.ask("grpc", one.key, "default")
                assert answer.code == "rate_limit_exceeded"
                refused += 1

        flooding = [asyncio.ensure_future(flood()) for _ in range(callers)]
        await until(lambda: refused > callers)
        before = refused
        for _ in range(calls):
            assert (await stack.ask("grpc", other.key, "default")).code == ""
        rounds = (refused - before) / callers / calls
        over.set()
        await asyncio.gather(*flooding)
        for call in held:
            call.cancel()
        await asyncio.wait(held)
        assert rounds < most_rounds
        await stack.rests()
        assert len(stack.books.charges(other)) == calls
        assert stack.books.charges(one) == []
        stack.books.nothing_is_open()


async def test_pings_faster_than_allowed_end_their_connection_alone() -> None:
    stuck = "sim-fault:hang-mid-stream"
    async with simulator() as upstream, service(["any", stuck], upstream) as running:
        reading = running.client.start_stream(stuck)
        other = await upstream.next_record()
        async with dial(running.address) as raw:
            await raw.settled()
            request = StreamChatCompletionRequest(params=params(stuck)).SerializeToString()
            stream = raw.begin(STREAM, request, key=KEY)
            record = await upstream.next_record()
            for _ in range(10):
                raw.ping()
            ended = await raw.ended(stream)
            assert ended.code != 0
            await record.ended.wait()
            assert record.outcome == "caller_left"
        assert not other.ended.is_set()
        assert not reading.done()
        await running.client.create("any")
        reading.cancel()
        await other.ended.wait()
        await running.rests()

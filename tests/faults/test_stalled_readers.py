"""Callers over REST who stop reading a stream: what each of them costs, and what stays.

reader -> bridge -> service -> upstream, which sends far more than any buffer holds
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from service.simulator import RequestRecord, SimulatorServer
from tests.support.grpc_client import KEY
from tests.support.processes import Process, process, service_process
from tests.support.running_bridge import PATH
from tests.support.running_service import simulator
from tests.support.waiting import PATIENCE, until

READERS: Final = 50
CROWD: Final = 500
IDLE_CONNECTIONS: Final = 10
"""Connections to the upstream that the service may keep for its next calls."""
WARM: Final = 20
MOST_OF_ONE: Final = {4: 256 * 1024, 1000: 256 * 1024, 32_000: 256 * 1024, 100_000: 640 * 1024}
"""Maximum memory of one reader in both processes together, by the size of chunks, in bytes."""
MOST_LEFT: Final = 64 * 1024
"""Maximum memory that stays of each reader of a crowd, in both processes together, in bytes."""
MOST_MORE: Final = 16 * 1024
"""Maximum memory that stays of each reader of a second crowd in addition, in bytes."""
TOTAL: Final = 16 * 1024 * 1024
"""The least bytes of a stream, more than the buffers of all sockets on its way."""


def _event(content: str) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return json.dumps(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        | {"choices": [choice]}
    ).encode()


def _resident(*processes: Process) -> int:
    """Return the memory of processes, in bytes."""
    total = 0
    for each in processes:
        text = Path(f"/proc/{each.process.pid}/smaps_rollup").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("Rss:"))
        total += int(line.split()[1]) * 1024
    return total


@asynccontextmanager
async def _readers(address: str, count: int) -> AsyncIterator[None]:
    """Request streams, and read nothing."""
    host, _, port = address.rpartition(":")
    body = json.dumps(
        {"model": "flood", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    ).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    sockets = []
    try:
        for _ in range(count):
            made = socket.socket()
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.setblocking(False)
            sockets.append(made)
            await loop.sock_connect(made, (host, int(port)))
            await loop.sock_sendall(made, head + body)
        yield
    finally:
        for made in sockets:
            made.close()


async def _stands_still(upstream: SimulatorServer, count: int) -> None:
    """Wait until a number of streams began and none sends anything."""
    before = -1
    while len(upstream.records) < count or before != _sent(upstream):
        before = _sent(upstream)
        for _ in range(20):
            await asyncio.sleep(0.02)


def _records(upstream: SimulatorServer) -> Iterator[RequestRecord]:
    return (upstream.records[number] for number in range(len(upstream.records)))


def _sent(upstream: SimulatorServer) -> int:
    return sum(record.bytes_sent for record in _records(upstream))


async def _all_left(upstream: SimulatorServer) -> None:
    for record in _records(upstream):
        await record.ended.wait()


@asynccontextmanager
async def _deployables(
    directory: Path, size: int
) -> AsyncIterator[tuple[Process, Process, SimulatorServer]]:
    """Run a service and a bridge, with an upstream whose chunks have this size."""
    models = directory / "models.toml"
    async with simulator() as upstream:
        upstream.stream_with("flood", [_event("x" * size)] * (TOTAL // (size + 150)))
        models.write_text(
            f'[upstreams.u]\nbase_url = "{upstream.base_url}"\napi_key_variable = "KEY"\n'
            '[models.flood]\nupstream = "u"\nupstream_model = "flood"\n'
            "default_output_tokens = 1024\nmaximum_output_tokens = 1000000\n"
        )
        async with (
            service_process(CHAT_MODELS_FILE=str(models), KEY="sk-of-the-upstream") as (service, _),
            process(
                "restbridge",
                {
                    "CHAT_SERVICE_TARGET": await service.address(),
                    "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
                    "CHAT_BRIDGE_METRICS_LISTEN": "none",
                },
            ) as bridge,
        ):
            yield service, bridge, upstream


@pytest.mark.alone
@pytest.mark.time_limit(180)
@pytest.mark.parametrize("size", MOST_OF_ONE)
async def test_a_reader_who_stalls_costs_little(size: int, tmp_path: Path) -> None:
    async with _deployables(tmp_path, size) as (service, bridge, upstream):
        address = await bridge.address()
        growth = []
        for count in (WARM, READERS, READERS):
            before = _resident(service, bridge)
            upstream.records.clear()
            async with _readers(address, count):
                await _stands_still(upstream, count)
                growth.append(_resident(service, bridge) - before)
            await _all_left(upstream)
        assert growth[1] / READERS < MOST_OF_ONE[size]
        # The second crowd takes the memory that the first one left.
        assert growth[2] < READERS * MOST_OF_ONE[size]


def _descriptors(running: Process) -> int:
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))


@pytest.mark.alone
@pytest.mark.time_limit(300)
async def test_nothing_is_left_of_500_who_stalled(tmp_path: Path) -> None:
    size = 32_000
    async with _deployables(tmp_path, size) as (service, bridge, upstream):
        address = await bridge.address()
        async with _readers(address, WARM):
            await _stands_still(upstream, WARM)
        await _all_left(upstream)
        before = _descriptors(service), _descriptors(bridge)
        memory = _resident(service, bridge)
        most_left = CROWD * MOST_LEFT
        # The second crowd takes what stays of the first one: it is no leak.
        for _ in range(2):
            upstream.records.clear()
            async with _readers(address, CROWD):
                await _stands_still(upstream, CROWD)
                assert _descriptors(bridge) > CROWD
                most = _resident(service, bridge)
            await _all_left(upstream)
            await until(lambda: _descriptors(service) <= before[0] + IDLE_CONNECTIONS)
            await until(lambda: _descriptors(bridge) <= before[1])
            # Both look at their memory every 10 s.
            async with asyncio.timeout(3 * PATIENCE):
                while _resident(service, bridge) - memory >= most_left:  # noqa: ASYNC110 - another process returns it
                    await asyncio.sleep(0.1)
            assert most - memory < CROWD * MOST_OF_ONE[size]
            most_left = _resident(service, bridge) - memory + CROWD * MOST_MORE

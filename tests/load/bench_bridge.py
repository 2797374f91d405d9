"""What the bridge costs: start, memory at rest, CPU per unary request and per streamed chunk.

    this process ── HTTP ──► python -m restbridge ── gRPC ──► this file, as a service

Three processes; the bridge's CPU time is the kernel's account of it, the wall clock plays no part
but for the start. Prints a table; asserts nothing. For comparison the same file prints what grpcio
alone costs for the same stream, read by a client that does nothing with it.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path

import grpc
import uvloop

from chatcompletion.v1.chat_completion_service_pb2 import (
    StreamChatCompletionRequest,
    StreamChatCompletionResponse,
)
from tests.support.bridge_pair import REQUEST, STREAMED
from tests.support.fake_service import FakeService, saying, serve
from tests.support.running_bridge import PATH

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CONCURRENCY = 32
CALLS = 4000
STREAMS = 160
CHUNKS = 400


def cpu_seconds(pid: int | str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def request(document: object) -> bytes:
    body = json.dumps(document).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer sk-live-benchmark\r\nAccept: application/json\r\n"
        f"User-Agent: benchmark\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, data: bytes, times: int, end: bytes) -> None:
    """Send a request again and again on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    for _ in range(times):
        writer.write(data)
        await reader.readuntil(end)
    writer.close()


async def load(port: int, document: object, total: int, end: bytes) -> None:
    data = request(document)
    each = total // CONCURRENCY
    await asyncio.gather(*(ask(port, data, each, end) for _ in range(CONCURRENCY)))


async def measure(pid: int, port: int) -> None:
    unary, streamed = b"}]}", b"[DONE]\n\n\r\n0\r\n\r\n"
    await load(port, REQUEST, CONCURRENCY * 10, unary)
    before = cpu_seconds(pid)
    await load(port, REQUEST, CALLS, unary)
    per_call = (cpu_seconds(pid) - before) / CALLS
    before = cpu_seconds(pid)
    await load(port, STREAMED, STREAMS, streamed)
    per_chunk = (cpu_seconds(pid) - before) / (STREAMS * CHUNKS)
    print(f"CPU per unary request     {per_call * 1e6:8.1f} µs")
    print(f"CPU per streamed chunk    {per_chunk * 1e6:8.1f} µs")
    print(f"memory afterwards         {resident_megabytes(pid):8.1f} MB")


async def read_only(target: str) -> None:
    """Print what reading the same chunks costs without a bridge."""
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_stream(
            "/chatcompletion.v1.ChatCompletionService/StreamChatCompletion",
            request_serializer=StreamChatCompletionRequest.SerializeToString,
            response_deserializer=StreamChatCompletionResponse.FromString,
        )

        async def read() -> None:
            for _ in range(STREAMS // CONCURRENCY):
                async for _ in call(StreamChatCompletionRequest()):
                    pass

        before = cpu_seconds("self")
        await asyncio.gather(*(read() for _ in range(CONCURRENCY)))
        per_chunk = (cpu_seconds("self") - before) / (STREAMS * CHUNKS)
    print(f"  of these grpcio alone   {per_chunk * 1e6:8.1f} µs")


async def until_answering(port: int, path: bytes, status: bytes) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path)
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 " + status):
                return
        except ConnectionError:
            await asyncio.sleep(0.005)


async def bench() -> None:
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "service"), stdout=asyncio.subprocess.PIPE
    )
    bridge = None
    try:
        assert service.stdout is not None
        target = (await service.stdout.readline()).decode().strip()
        port = free_port()
        started = time.perf_counter()
        bridge = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "restbridge"),
            env={
                **os.environ,
                "CHAT_BRIDGE_LISTEN": f"127.0.0.1:{port}",
                "CHAT_BRIDGE_METRICS_LISTEN": "none",
                "CHAT_SERVICE_TARGET": target,
                "CHAT_LOG_LEVEL": "warning" if "--quiet" in sys.argv else "info",
            },
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until_answering(port, b"/healthz", b"200")
        print(f"start to the first answer {(time.perf_counter() - started) * 1e3:8.0f} ms")
        await until_answering(port, b"/readyz", b"200")
        print(f"memory at rest            {resident_megabytes(bridge.pid):8.1f} MB")
        await measure(bridge.pid, port)
        await read_only(target)
    finally:
        for process in (bridge, service):
            if process is not None:
                process.kill()
                await process.wait()


async def run_service() -> None:
    fake = FakeService()
    fake.stream = saying(*["token"] * (CHUNKS - 1))
    async with serve(fake):
        print(fake.address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(run_service() if sys.argv[1:] == ["service"] else bench())

"""What the service costs: start, memory at rest, CPU per unary call and per streamed chunk.

    this process ── gRPC ──► python -m service ── HTTP ──► python -m service.simulator

The service is a process of its own and its CPU time is the kernel's account of it; the wall clock
plays no part but for the start. Prints a table; asserts nothing.
"""

from __future__ import annotations  # AsyncStub is a name for type checkers only

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import uvloop
from grpc_health.v1 import health_pb2

from chatcompletion.v1 import chat_completion_service_pb2 as messages
from chatcompletion.v1 import chat_completion_service_pb2_grpc as services
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ChatMessage

KEY = "sk-live-benchmark-0123456789"
TICKS = os.sysconf("SC_CLK_TCK")
CONCURRENCY = 32
CALLS = 3000
STREAMS = 160
TOKENS = 200
FRESH = (("grpc.use_local_subchannel_pool", 1),)
"""Each attempt connects anew, without the pause after one that failed."""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def until_serving(target: str) -> None:
    while True:
        try:
            async with grpc.aio.insecure_channel(target, options=FRESH) as channel:
                check = channel.unary_unary(
                    "/grpc.health.v1.Health/Check",
                    request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                    response_deserializer=health_pb2.HealthCheckResponse.FromString,
                )
                answer = await check(health_pb2.HealthCheckRequest(), timeout=10)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.01)


def params(model: str) -> ChatCompletionParams:
    return ChatCompletionParams(
        model=model,
        messages=[
            ChatMessage(role="system", content_text="You are a helpful assistant."),
            ChatMessage(role="user", content_text="Tell me about the sea. " * 10),
        ],
        temperature=0.7,
        max_tokens=TOKENS,
    )


async def unary(stub: services.ChatCompletionServiceAsyncStub, calls: int) -> None:
    request = messages.CreateChatCompletionRequest(params=params("short"))
    metadata = (("authorization", f"Bearer {KEY}"),)

    async def work(count: int) -> None:
        for _ in range(count):
            await stub.CreateChatCompletion(request, metadata=metadata)

    await asyncio.gather(*(work(calls // CONCURRENCY) for _ in range(CONCURRENCY)))


async def streamed(stub: services.ChatCompletionServiceAsyncStub, streams: int) -> int:
    request = messages.StreamChatCompletionRequest(params=params("long"))
    metadata = (("authorization", f"Bearer {KEY}"),)
    chunks = 0

    async def work(count: int) -> None:
        nonlocal chunks
        for _ in range(count):
            async for _ in stub.StreamChatCompletion(request, metadata=metadata):
                chunks += 1

    await asyncio.gather(*(work(streams // CONCURRENCY) for _ in range(CONCURRENCY)))
    return chunks


def start(directory: Path) -> tuple[str, subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Start simulator and service; return where the service will listen, and both."""
    simulator_port, service_port = free_port(), free_port()
    models = directory / "models.toml"
    models.write_text(
        f'[upstreams.simulator]\nbase_url = "http://127.0.0.1:{simulator_port}"\n'
        + "".join(
            f'[models.{name}]\nupstream = "simulator"\nupstream_model = "sim:tokens={tokens}"\n'
            "default_output_tokens = 1024\nmaximum_output_tokens = 8192\n"
            for name, tokens in (("short", 20), ("long", TOKENS))
        )
    )
    environment = {
        **os.environ,
        "CHAT_LISTEN": f"127.0.0.1:{service_port}",
        "CHAT_METRICS_LISTEN": "none",
        "CHAT_MODELS_FILE": str(models),
        "CHAT_BOOTSTRAP_API_KEY": KEY,
        "CHAT_DRAIN_DELAY": "0",
        "CHAT_LOG_LEVEL": os.environ.get("CHAT_LOG_LEVEL", "info"),
    }
    simulator = subprocess.Popen(
        [sys.executable, "-m", "service.simulator", "--listen", f"127.0.0.1:{simulator_port}"],
        stdout=subprocess.DEVNULL,
    )
    service = subprocess.Popen(
        [sys.executable, "-m", "service"], env=environment, cwd=directory, stderr=subprocess.DEVNULL
    )
    return f"127.0.0.1:{service_port}", service, simulator


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        target, service, simulator = start(Path(directory))
        try:
            await measure(target, service, started)
        finally:
            for process in (service, simulator):
                process.terminate()
                process.wait()


async def measure(target: str, service: subprocess.Popen[bytes], started: float) -> None:
    await until_serving(target)
    print(f"cold start to SERVING        {(time.perf_counter() - started) * 1000:8.0f} ms")
    print(f"CPU until SERVING            {cpu_seconds(service.pid) * 1000:8.0f} ms")
    print(f"resident memory at rest      {resident_megabytes(service.pid):8.1f} MB")
    async with grpc.aio.insecure_channel(target) as channel:
        stub = services.ChatCompletionServiceStub(channel)
        await unary(stub, CONCURRENCY * 10)
        before = cpu_seconds(service.pid)
        await unary(stub, CALLS)
        used = cpu_seconds(service.pid) - before
        print(f"CPU per unary call           {used / CALLS * 1e6:8.0f} µs")
        await streamed(stub, CONCURRENCY)
        before = cpu_seconds(service.pid)
        chunks = await streamed(stub, STREAMS)
        used = cpu_seconds(service.pid) - before
        print(f"CPU per streamed chunk       {used / chunks * 1e6:8.1f} µs   ({chunks} chunks)")
    print(f"resident memory after        {resident_megabytes(service.pid):8.1f} MB")


if __name__ == "__main__":
    uvloop.run(main())

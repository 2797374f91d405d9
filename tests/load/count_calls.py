"""How many functions of ours a call enters in the service: per unary request, per streamed chunk.

    this process -gRPC-> counting_service.py -HTTP-> python -m service.simulator

    python tests/load/count_calls.py            the service of this tree
    python tests/load/count_calls.py TREE       that of another checkout

An entry is a call of a Python function, or a coroutine or generator that goes on, in any thread.
Only functions in the files of this project are counted. Requests are sent one at a time, and each
figure is the median over `CALLS` of them, so that the work of every second is not in it. Chunks
arrive one at a time; a chunk is the difference between streams of different lengths. Prints a
table; asserts nothing.
"""

from __future__ import annotations  # AsyncStub is a name for type checkers only

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Final

import grpc

from chatcompletion.v1 import chat_completion_service_pb2 as messages
from chatcompletion.v1 import chat_completion_service_pb2_grpc as services
from tests.load.counted_processes import KEY, params, start, until_serving

CALLS: Final = 30
SHORT: Final = 20
LONG: Final = 60
"""Tokens, each a chunk."""
METADATA: Final = (("authorization", f"Bearer {KEY}"),)
_REST: Final = 0.02
"""Seconds without an entry after which a call has ended."""


def entries(service: subprocess.Popen[bytes]) -> Counter[str]:
    """Return the entries since the last question, by file."""
    assert service.stdin is not None
    assert service.stdout is not None
    service.stdin.write(b"\n")
    service.stdin.flush()
    return Counter(json.loads(service.stdout.readline()))


def settled(service: subprocess.Popen[bytes]) -> Counter[str]:
    """Return the entries since the last question, once there are no more."""
    found = entries(service)
    while True:
        time.sleep(_REST)
        if not (more := entries(service)):
            return found
        found += more


async def per_call(
    service: subprocess.Popen[bytes], call: Callable[[], Awaitable[None]]
) -> dict[str, float]:
    """Return the median entries of a call, by file; files with none are absent."""
    found: list[Counter[str]] = []
    for _ in range(CALLS):
        settled(service)
        await call()
        found.append(settled(service))
    files = {file for one in found for file in one}
    usual = {file: median(one[file] for one in found) for file in files}
    return {file: number for file, number in usual.items() if number}


async def measure(target: str, service: subprocess.Popen[bytes]) -> None:
    """Print the table of a service that starts."""
    await until_serving(target)
    async with grpc.aio.insecure_channel(target) as channel:
        stub: services.ChatCompletionServiceAsyncStub = services.ChatCompletionServiceStub(channel)

        async def unary() -> None:
            request = messages.CreateChatCompletionRequest(params=params("unary"))
            await stub.CreateChatCompletion(request, metadata=METADATA)

        async def streamed(model: str) -> None:
            request = messages.StreamChatCompletionRequest(params=params(model))
            async for _ in stub.StreamChatCompletion(request, metadata=METADATA):
                pass

        for warm in (unary(), streamed("short")):
            await warm
        whole = await per_call(service, unary)
        short = await per_call(service, lambda: streamed("short"))
        long = await per_call(service, lambda: streamed("long"))
    chunk = {
        file: (number - short.get(file, 0)) / (LONG - SHORT)
        for file, number in long.items()
        if number != short.get(file, 0)
    }
    for name, counted in (("unary request", whole), ("streamed chunk", chunk)):
        print(f"entries per {name:15} {sum(counted.values()):8.1f}   in {len(counted)} files")


async def main(tree: Path) -> None:
    """Count the calls of a checkout."""
    models = {
        "unary": f"sim:tokens={SHORT}",
        "short": f"sim:tokens={SHORT},itd=0.004",
        "long": f"sim:tokens={LONG},itd=0.004",
    }
    with tempfile.TemporaryDirectory() as directory:
        target, service, simulator = start(
            Path(directory),
            models,
            (str(Path(__file__).with_name("counting_service.py")), str(tree)),
            PYTHONPATH=f"{tree}:{tree / 'protos'}",
        )
        try:
            await measure(target, service)
        finally:
            for process in (service, simulator):
                process.kill()
                process.communicate()


if __name__ == "__main__":
    here = Path(__file__).parents[2]
    asyncio.run(main(Path(sys.argv[1] if sys.argv[1:] else here).resolve()))

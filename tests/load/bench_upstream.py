"""What a request to the upstream and a chunk from it cost, by the transport that carries them.

    this process ── HTTP ──► an instant server, in a process of its own

Counts the CPU time, user and system, of this process alone. The rounds of the transports alternate,
so that a busy machine disturbs all alike; the least and the median of the rounds are printed.

    transport           a request on the transport alone, its body read
    complete            `UpstreamClient.complete`
    stream, at once     `UpstreamClient.stream` per chunk, when all chunks come in one read
    stream, one by one  the same when each chunk comes in a read of its own
"""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx
import uvloop

from service.metering.progress import Progress
from service.telemetry import Telemetry
from service.upstream.client import UpstreamClient, transport
from service.upstream.client_limits import UpstreamLimits
from tests.support.samples import (
    DONE,
    accepted_of,
    call,
    chunk,
    completion,
    event,
    model,
    params,
    usage_chunk,
)

CONCURRENCY = 32
ROUNDS = 7
REQUESTS = 3200
STREAMS = 64
TOKENS = 64
GAP = 0.002
"""Seconds between chunks that come one by one."""

TRANSPORTS: dict[str, Callable[[], httpx.AsyncBaseTransport]] = {
    "ours": lambda: transport(max_connections=CONCURRENCY),
    "httpx's": lambda: httpx.AsyncHTTPTransport(
        trust_env=False, limits=httpx.Limits(max_connections=CONCURRENCY)
    ),
}


# ------------------------------------------------------------------------------------- the server


def _answer(kind: str, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        kind.encode(),
        len(body),
        body,
    )


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = _answer("application/json", json.dumps(completion()).encode())
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
PIECES = [
    *(_chunked(event(chunk(" capital"))) for _ in range(TOKENS)),
    _chunked(event(chunk(None, "stop"))),
    _chunked(event(usage_chunk())),
    _chunked(DONE) + _chunked(b""),
]


class Server(asyncio.Protocol):
    """Answers each request at once, and streams as its model says."""

    def connection_made(self, connection: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = connection  # type: ignore[assignment]
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, rest = self._read.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        if not end or len(rest) < length:
            return
        self._read = rest[length:]
        if b'"stream":true' not in rest:
            self._transport.write(WHOLE)
        elif b'"at-once"' in rest:
            self._transport.write(HEAD + b"".join(PIECES))
        else:
            self._transport.write(HEAD)
            self._write(0)

    def _write(self, at: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(PIECES[at])
        if at + 1 < len(PIECES):
            asyncio.get_running_loop().call_later(GAP, self._write, at + 1)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# ------------------------------------------------------------------------------------- the client


class Bench:
    """A client on one transport."""

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport], base_url: str) -> None:
        self.transport = make()
        limits = UpstreamLimits(
            connect=10, first_byte=60, idle=60, longest_retry_after=1, max_response_bytes=2**24
        )
        self._client = UpstreamClient(
            self.transport,
            limits,
            Telemetry(),
            now=lambda: datetime.now(UTC),
            random=random.random,
        )
        upstream = model().upstream
        upstream = type(upstream)(name="u", base_url=base_url, api_key="sk-benchmark-0123456789")
        self._models = {
            name: model(upstream=upstream, upstream_model=name)
            for name in ("at-once", "one-by-one")
        }
        self._url = httpx.URL(f"{base_url}/chat/completions")

    async def bare(self) -> int:
        """Ask on the transport alone."""
        request = httpx.Request("POST", self._url, content=b"{}")
        response = await self.transport.handle_async_request(request)
        await response.aread()
        await response.aclose()
        return 1

    async def complete(self) -> int:
        """Ask for a whole answer."""
        await self._client.complete(accepted_of(params(), self._models["at-once"]), call())
        return 1

    async def stream(self, how: str) -> int:
        """Ask for a stream; return its chunks."""
        request = accepted_of(params(stream=True), self._models[how])
        chunks = self._client.stream(request, call(), Progress(wants_usage=True))
        return len([None async for _ in chunks])


async def cost(work: Callable[[], Awaitable[int]], times: int) -> float:
    """Return the CPU time of a unit of work, in microseconds."""

    async def worker() -> int:
        return sum([await work() for _ in range(times // CONCURRENCY)])

    before = time.process_time()
    done = await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return (time.process_time() - before) / sum(done) * 1e6


async def measure(base_url: str) -> None:
    benches = {name: Bench(make, base_url) for name, make in TRANSPORTS.items()}
    works: dict[str, tuple[Callable[[Bench], Callable[[], Awaitable[int]]], int]] = {
        "transport": (lambda bench: bench.bare, REQUESTS),
        "complete": (lambda bench: bench.complete, REQUESTS),
        "stream, at once": (lambda bench: lambda: bench.stream("at-once"), STREAMS),
        "stream, one by one": (lambda bench: lambda: bench.stream("one-by-one"), STREAMS),
    }
    print(f"{'CPU, µs: least and median':28}" + "".join(f"{name:>18}" for name in benches))
    for title, (work, times) in works.items():
        figures: dict[str, list[float]] = {name: [] for name in benches}
        for _ in range(1 + ROUNDS):
            for name, bench in benches.items():
                figures[name].append(await cost(work(bench), times))
        cells = (
            f"{min(rounds[1:]):9.1f}{statistics.median(rounds[1:]):9.1f}"
            for rounds in figures.values()
        )
        print(f"{title:28}" + "".join(cells), flush=True)
    for bench in benches.values():
        await bench.transport.aclose()


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
        return
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            uvloop.run(measure(f"http://127.0.0.1:{port}/v1"))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()

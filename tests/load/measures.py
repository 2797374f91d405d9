"""The measures: each takes a slice and returns its figures.

A slice is short, so that the slices of several systems alternate: see `bench`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from tests.load import drive
from tests.load.clients import Caller, Request, Seen, Target, UnexpectedError, connected
from tests.load.systems import LITELLM, WORKERS, System
from tests.load.upstream import CHUNKS, INSTANT

CALLERS: Final = 32
PACED: Final = 200
OPEN: Final = 1500
LATENCY_RATE: Final = 25.0
FIRST_CALLERS: Final = 64
CHUNKS_PER_SECOND: Final = 2000
FLATNESS: Final = (50, 500, 1500, 3000)
DENSE: Final = 1000

UNARY: Final = Request(model=INSTANT, streamed=False)
BURST: Final = Request(model=INSTANT, streamed=True)
GAPS: Final = Request(model="paced-50", streamed=True)
OFTEN: Final = Request(model="held-50", streamed=True)
SELDOM: Final = Request(model="held-3000", streamed=True)
LARGE: Final = Request(model=INSTANT, streamed=False, prompt="A word of it. " * (2**20 // 14))


def held(streams: int) -> Request:
    """Return a request whose stream never ends; so many of them bring 2,000 chunks a second."""
    return Request(model=f"held-{streams * 1000 // CHUNKS_PER_SECOND}", streamed=True)


@dataclass(kw_only=True, slots=True)
class Subject:
    """A system with what its measures need.

    Args:
        system: The system.
        upstream: Where the same requests go without a system between.
        seconds: How long a slice lasts.
        streams_per_second: Its streams per second under full load, from its first slice on.
    """

    system: System
    upstream: Target
    seconds: float
    streams_per_second: float = 0.0

    @property
    def callers(self) -> int:
        """The number of callers under full load: 32 for each worker."""
        return CALLERS * WORKERS.get(self.system.plan.topology, 1)

    def spent(self, before: float) -> float:
        """Return the CPU microseconds used since it had used `before` seconds."""
        return (self.system.cpu_seconds() - before) * 1e6


Figures = Mapping[str, float]


async def unary(subject: Subject) -> Figures:
    """Closed loop of 32 callers per worker: CPU per request, rate, latency, CPU of this process."""
    async with connected(subject.system.target, subject.callers) as callers:
        before, own = subject.system.cpu_seconds(), time.process_time()
        done = await drive.closed(callers, UNARY, subject.seconds)
        spent, own = subject.spent(before), time.process_time() - own
    return {
        "unary": spent / done.requests,
        "rate": done.requests / done.seconds,
        "slow": drive.percentile(done.lengths, 99) * 1e3,
        "load": 100 * own / done.seconds,
    }


async def chunks(subject: Subject) -> Figures:
    """Closed loop of 32 callers per worker: CPU per chunk of streams that come in one burst."""
    async with connected(subject.system.target, subject.callers) as callers:
        before = subject.system.cpu_seconds()
        done = await drive.closed(callers, BURST, subject.seconds)
        spent = subject.spent(before)
    subject.streams_per_second = done.requests / done.seconds
    return {"chunk": spent / _chunks(subject, done)}


async def paced(subject: Subject) -> Figures:
    """200 streams at a time: CPU per chunk of streams with gaps of 50 ms."""
    async with connected(subject.system.target, PACED) as callers:
        before = subject.system.cpu_seconds()
        done = await drive.once(callers, GAPS, spread=0.5)
        spent = subject.spent(before)
    return {"paced": spent / _chunks(subject, done)}


async def large(subject: Subject) -> Figures:
    """Closed loop of 32 callers: CPU per request with a prompt of 1 MB."""
    async with connected(subject.system.target, subject.callers) as callers:
        before = subject.system.cpu_seconds()
        done = await drive.closed(callers, LARGE, subject.seconds)
        spent = subject.spent(before)
    return {"large": spent / done.requests}


async def latency(subject: Subject) -> Figures:
    """One caller, 25 arrivals per second: what the system adds to a unary request."""
    through, straight = [
        [
            each.whole
            for each in await _arrivals(
                target, 1, UNARY, drive.evenly(LATENCY_RATE, 2 * subject.seconds)
            )
        ]
        for target in (subject.system.target, subject.upstream)
    ]
    return {
        f"p{percent}": (drive.percentile(through, percent) - drive.percentile(straight, percent))
        * 1e3
        for percent in (50, 99)
    }


async def first(subject: Subject) -> Figures:
    """64 callers, half of the most streams per second: what it adds to the first token."""
    if not subject.streams_per_second:
        await chunks(subject)
    rate = subject.streams_per_second / 2
    through, straight = [
        [
            each.first
            for each in await _arrivals(
                target, FIRST_CALLERS, BURST, drive.by_chance(rate, 2 * subject.seconds)
            )
        ]
        for target in (subject.system.target, subject.upstream)
    ]
    added = drive.percentile(through, 99) - drive.percentile(straight, 99)
    return {"first": added * 1e3, "first_rate": rate}


async def memory(subject: Subject) -> Figures:
    """Resident memory: after the first request, and with 1,500 open streams.

    LiteLLM opens at most 1,000 connections to an upstream.
    """
    rest = {"rest": subject.system.megabytes_at_rest}
    if subject.system.plan.topology == LITELLM:
        return rest
    async with _open(subject, OPEN, SELDOM):
        with_streams = subject.system.megabytes()
    return {**rest, "open": with_streams}


async def flat(subject: Subject) -> Figures:
    """The same 2,000 chunks per second, in few or in many streams: CPU per chunk."""
    found = {}
    for streams in FLATNESS:
        async with _open(subject, streams, held(streams)) as received:
            before, chunks = subject.system.cpu_seconds(), received()
            await asyncio.sleep(max(2.0, subject.seconds))
            found[f"flat_{streams}"] = subject.spent(before) / (received() - chunks)
    return found


async def dense(subject: Subject) -> Figures:
    """1,000 open streams with 20 chunks per second each: how many arrive, and CPU per chunk."""
    seconds = max(2.0, subject.seconds)
    async with _open(subject, DENSE, OFTEN) as received:
        before, chunks = subject.system.cpu_seconds(), received()
        start = time.monotonic()
        await asyncio.sleep(seconds)
        arrived, took = received() - chunks, time.monotonic() - start
        spent = subject.spent(before)
    return {"dense_rate": arrived / took, "dense": spent / arrived}


def _chunks(subject: Subject, done: drive.Done) -> int:
    """Return how many chunks the upstream sent, and check that as many arrived.

    LiteLLM leaves some out; what it costs is still a matter of those that it was sent.
    """
    sent = done.requests * CHUNKS
    if done.chunks != sent and subject.system.plan.topology != LITELLM:
        raise UnexpectedError(f"{done.chunks} of {sent} chunks arrived")
    return sent


async def _arrivals(
    target: Target, callers: int, request: Request, times: Iterator[float]
) -> list[drive.Latency]:
    async with connected(target, callers) as connections:
        return await drive.arrivals(connections, request, times)


@asynccontextmanager
async def _open(
    subject: Subject, streams: int, request: Request
) -> AsyncIterator[Callable[[], int]]:
    """Open streams, up to 32 at a time, and hold them; yield a count of the chunks received."""
    callers: list[Caller] = []
    tasks: list[asyncio.Task[Seen]] = []
    async with AsyncExitStack() as connections:
        try:
            while (left := streams - len(callers)) > 0:
                more = connected(subject.system.target, min(CALLERS, left))
                opening = await connections.enter_async_context(more)
                callers += opening
                tasks += [asyncio.create_task(each.ask(request)) for each in opening]
                while not all(caller.chunks for caller in opening):
                    _raise_failures(tasks)
                    await asyncio.sleep(0.01)
            yield lambda: sum(caller.chunks for caller in callers)
            _raise_failures(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _raise_failures(tasks: Sequence[asyncio.Task[Seen]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A row of the tables.

    Args:
        text: What is measured.
        unit: Its unit.
        digits: How many digits after the point are shown.
    """

    text: str
    unit: str
    digits: int = 0


MEASURES: Final[Mapping[str, Callable[[Subject], Awaitable[Figures]]]] = {
    "unary": unary,
    "chunks": chunks,
    "paced": paced,
    "large": large,
    "latency": latency,
    "first": first,
    "memory": memory,
    "flat": flat,
    "dense": dense,
}
"""By the name that `--only` takes, in their order."""

OPTIONAL: Final = frozenset({"flat", "dense"})
"""Measured only if `--only` names them."""

FIGURES: Final[Mapping[str, Figure]] = {
    "unary": Figure(text="CPU per unary request", unit="µs"),
    "rate": Figure(text="Unary requests per second", unit="1/s"),
    "slow": Figure(text="Latency under full load, p99", unit="ms", digits=1),
    "load": Figure(text="CPU of the load generator meanwhile", unit="%"),
    "chunk": Figure(text="CPU per chunk, streams in one burst", unit="µs", digits=1),
    "paced": Figure(text="CPU per chunk, 200 streams with gaps of 50 ms", unit="µs", digits=1),
    "large": Figure(text="CPU per request with a prompt of 1 MB", unit="µs"),
    "p50": Figure(text="Added latency, one caller, p50", unit="ms", digits=2),
    "p99": Figure(text="Added latency, one caller, p99", unit="ms", digits=2),
    "first": Figure(text="Added time to the first token, half load, p99", unit="ms", digits=1),
    "first_rate": Figure(text="Streams per second at half load", unit="1/s"),
    "rest": Figure(text="Resident memory at rest", unit="MB"),
    "open": Figure(text="Resident memory with 1,500 open streams", unit="MB"),
    **{
        f"flat_{streams}": Figure(
            text=f"CPU per chunk, 2,000 per second in {streams:,} streams", unit="µs", digits=1
        )
        for streams in FLATNESS
    },
    "dense_rate": Figure(text="Chunks per second of 20,000 in 1,000 streams", unit="1/s"),
    "dense": Figure(text="CPU per chunk, 1,000 streams with gaps of 50 ms", unit="µs", digits=1),
}
"""Every figure of the measures, in the order of the tables."""

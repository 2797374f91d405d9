"""Loads: callers in a closed loop, and arrivals by a schedule.

    closed   each caller makes its next request when it has its response
    arrivals requests arrive whether or not a caller is free, and wait for one

The latency of an arrival counts from the moment it arrives. A system that stalls therefore delays
all the requests that arrive meanwhile, and each of them shows it.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.load.clients import Caller, Request, Seen


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What callers did in how many seconds, and how many seconds each request took."""

    requests: int
    chunks: int
    seconds: float
    lengths: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """How long a request took from its arrival, in seconds."""

    first: float
    whole: float


async def closed(callers: Sequence[Caller], request: Request, seconds: float) -> Done:
    """Let every caller make requests one after the other, and none begin after `seconds`."""
    began = time.perf_counter()
    chunks = 0
    lengths: list[float] = []

    async def work(caller: Caller) -> None:
        nonlocal chunks
        while (now := time.perf_counter()) - began < seconds:
            seen = await caller.ask(request)
            lengths.append(seen.ended - now)
            chunks += seen.chunks

    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(work(caller))
    return Done(
        requests=len(lengths),
        chunks=chunks,
        seconds=time.perf_counter() - began,
        lengths=lengths,
    )


async def once(callers: Sequence[Caller], request: Request, spread: float) -> Done:
    """Let every caller make one request, evenly spread over the first `spread` seconds."""
    began = time.perf_counter()

    async def work(index: int, caller: Caller) -> Seen:
        await asyncio.sleep(spread * index / len(callers))
        return await caller.ask(request)

    seen = await asyncio.gather(*(work(i, caller) for i, caller in enumerate(callers)))
    return Done(
        requests=len(seen),
        chunks=sum(each.chunks for each in seen),
        seconds=time.perf_counter() - began,
    )


async def arrivals(
    callers: Sequence[Caller],
    request: Request,
    times: Iterator[float],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Latency]:
    """Make a request at each of `times`, in seconds from now, by the first caller that is free.

    Args:
        callers: The callers.
        request: What each asks.
        times: When requests arrive, in ascending order.
        clock: The clock of the callers, in seconds.
    """
    loop = asyncio.get_running_loop()
    free: asyncio.Queue[Caller] = asyncio.Queue()
    for caller in callers:
        free.put_nowait(caller)
    found: list[Latency] = []

    async def serve() -> None:
        arrived = clock()
        caller = await free.get()
        seen = await caller.ask(request)
        free.put_nowait(caller)
        found.append(Latency(first=seen.first - arrived, whole=seen.ended - arrived))

    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for due in times:
            await asyncio.sleep(began + due - loop.time())
            group.create_task(serve())
    return found


def evenly(rate: float, seconds: float) -> Iterator[float]:
    """Yield arrivals at equal distances."""
    return (index / rate for index in range(int(rate * seconds)))


def by_chance(rate: float, seconds: float) -> Iterator[float]:
    """Yield arrivals as of many independent callers, a Poisson process; the same at each call."""
    chance = random.Random(1)  # noqa: S311 - a schedule, not a secret
    due = chance.expovariate(rate)
    while due < seconds:
        yield due
        due += chance.expovariate(rate)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the least value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

"""Where the time of a lone unary request goes: the median of each part, in microseconds.

    one caller -> restbridge --standalone, under `stamped` -> an upstream that answers at once

    back to back     each request begins when the last one has its response
    25 per second    as `latency` of `bench`: the caches of the CPU have been used by others

The CPU time is that of the whole process: what is left of "All" is waiting, for the upstream and
for the disk. The last rows are the flushes of a file in the same directory, at the same two paces:
a request waits for one, within its charge. TMPDIR selects the directory.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.load import drive, kernel, stamped
from tests.load.clients import connected
from tests.load.measures import LATENCY_RATE, UNARY
from tests.load.report import between
from tests.load.systems import Plan, System, start, start_upstream

PAGE: Final = Path(__file__).parents[2] / "docs" / "performance.md"
MARK: Final = "latency"
SECONDS: Final = 8.0
PACES: Final = {"back to back": 0.0, "25 per second": LATENCY_RATE}
_WRAPPER: Final = Path(stamped.__file__)
_PARTS: Final = {
    "received": "HTTP, decoding, key, validation",
    "placing": "The hold, without a flush",
    "placed": "The request to the upstream",
    "asking": "The upstream",
    "asked": "Its response",
    "charging": "The charge, flushed",
    "charged": "Encoding, HTTP",
}
"""The part that begins at each step of `stamped`."""


def main() -> None:
    """Measure, and print the table or write it into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench_latency", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write-docs", action="store_true", help=f"write {PAGE.name} instead")
    asked = parser.parse_args()
    columns = uvloop.run(_run())
    lines = [
        ("Part, µs", *columns),
        ("---",) * (1 + len(columns)),
        *(
            (part, *(f"{column[part] * 1e6:,.0f}" for column in columns.values()))
            for part in next(iter(columns.values()))
        ),
    ]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if asked.write_docs:
        before, _, after = between(PAGE.read_text(encoding="utf-8"), MARK)
        PAGE.write_text(f"{before}{table}{after}", encoding="utf-8")
    else:
        print(table)


async def _run() -> dict[str, dict[str, float]]:
    core, others = kernel.cores()
    upstream, port = start_upstream(others)
    found: dict[str, dict[str, float]] = {}
    try:
        with TemporaryDirectory(prefix="bench-") as name, kernel.on(others):
            plan = Plan(label="standalone", topology="standalone")
            system = start(plan, port, Path(name), core, wrapper=_WRAPPER)
            try:
                await system.ready()
                for pace, rate in PACES.items():
                    found[pace] = await _parts(system, rate) | _flushes(Path(name), rate)
            finally:
                system.stop()
    finally:
        upstream.kill()
        upstream.wait()
    return found


async def _parts(system: System, rate: float) -> dict[str, float]:
    async with connected(system.target, 1) as callers:
        await drive.closed(callers, UNARY, 1.0)
        await _written(system)
        before = system.cpu_seconds()
        if rate:
            await drive.arrivals(callers, UNARY, drive.evenly(rate, SECONDS))
        else:
            await drive.closed(callers, UNARY, SECONDS / 4)
        spent = system.cpu_seconds() - before
        requests = await _written(system)
    lengths = [[after - before for before, after in pairwise(times)] for times in requests]
    parts = map(statistics.median, zip(*lengths, strict=True))
    found = dict(zip((_PARTS[name] for name in stamped.NAMES[:-1]), parts, strict=True))
    return {
        **found,
        "All": statistics.median(times[-1] - times[0] for times in requests),
        "CPU time per request, of all threads": spent / len(requests),
    }


async def _written(system: System) -> Sequence[Sequence[float]]:
    ((pid, file),) = system.profiles
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    while not file.exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    written: Sequence[Sequence[float]] = json.loads(file.read_text(encoding="utf-8"))
    return written


def _flushes(directory: Path, rate: float) -> dict[str, float]:
    taken = sorted(_flush(directory / "flushed", 1 / rate if rate else 0.0))
    return {
        f"A flush alone, p{percent}": drive.percentile(taken, percent) for percent in (50, 90, 99)
    }


def _flush(path: Path, pause: float) -> Iterator[float]:
    """Append 8 KB, the log of a small transaction, and flush it; yield the seconds it takes."""
    with path.open("ab", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(8192))
            before = time.perf_counter()
            os.fdatasync(file)
            yield time.perf_counter() - before
            time.sleep(pause)


if __name__ == "__main__":
    main()

"""Where the time of a lone unary request goes: the median of each part, in microseconds.

    one caller -> restbridge --standalone, under `stamped` -> an upstream that answers at once

    back to back     each request begins when the last one has its response
    400 per second   about half of what one caller can have
    25 per second    as `latency` of `bench`: the caches of the CPU have been used by others

The CPU time is that of the whole process: what is left of "All" is waiting, for the upstream and
for the disk. The rows below are not of this project: the flushes of a file in the same directory,
one of which a request waits for within its charge, and a computation of the standard library. They
are measured at the same paces. TMPDIR selects the directory.
"""

import argparse
import ast
import asyncio
import configparser
import csv
import datetime
import decimal
import email.message
import hashlib
import html
import io
import json
import os
import re
import signal
import statistics
import sys
import textwrap
import time
import tokenize
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
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
PACES: Final = {"back to back": 0.0, "400 per second": 400.0, "25 per second": LATENCY_RATE}
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
                    found[pace] = await _parts(system, rate) | _others(Path(name), rate)
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


def _others(directory: Path, rate: float) -> dict[str, float]:
    """Return the medians and percentiles of what is not of this project, in seconds."""
    pause = 1 / rate if rate else 0.0
    with (directory / "flushed").open("ab", buffering=0) as file:

        def flush() -> Iterator[None]:
            file.write(bytes(8192))  # the log of a small transaction
            yield
            os.fdatasync(file)

        flushes = sorted(_timed(flush, pause))
    computed = statistics.median(_timed(_compute, pause))
    return {
        **{f"A flush alone, p{each}": drive.percentile(flushes, each) for each in (50, 90, 99)},
        "A computation of the standard library": computed,
    }


def _timed(work: Callable[[], Iterator[None]], pause: float) -> Iterator[float]:
    """Do some work 200 times with pauses; yield how long its part after the `yield` takes."""
    for _ in range(200):
        steps = work()
        next(steps)
        before = time.perf_counter()
        for _ in steps:
            pass
        yield time.perf_counter() - before
        time.sleep(pause)


def _compute() -> Iterator[None]:
    """Run a little of much code, as a request does, without input and output."""
    yield
    json.loads(json.dumps({"messages": [{"role": "user", "content": "Tell me. " * 20}] * 3}))
    re.findall(r"\w+", "abc def ghi " * 20)
    decimal.Decimal("1.23").quantize(decimal.Decimal("0.1"))
    datetime.datetime.now(datetime.UTC).isoformat()
    urllib.parse.parse_qs(urllib.parse.urlsplit("http://name.test/path?one=1&two=2").query)
    textwrap.wrap("the sea " * 30)
    ast.parse("a = 1\nb = [each for each in a if each]")
    list(csv.reader(io.StringIO("a,b\n1,2")))
    list(tokenize.generate_tokens(io.StringIO("a + b * c").readline))
    html.escape("<a>" * 10)
    hashlib.sha256(bytes(100)).hexdigest()
    configparser.ConfigParser().read_string("[one]\ntwo = 3\n")
    message = email.message.EmailMessage()
    message["Subject"] = "one"
    message.set_content("two")
    message.as_string()


if __name__ == "__main__":
    main()

"""`--profile`: which layer of a topology takes what share of the CPU time.

    processes under `profiled` -> self seconds by file -> by layer -> a table

cProfile makes calls of Python functions dearer than they are, so that the shares of layers with
many small functions are too large. They show where to look; what a change gains, the harness
measures without a profiler.
"""

import asyncio
import json
import os
import re
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.load import drive, profiled
from tests.load.clients import Request, connected
from tests.load.kernel import cores
from tests.load.measures import BURST, CALLERS, UNARY
from tests.load.profiled import SQLITE
from tests.load.systems import Plan, System, start, start_upstream

MARK: Final = "profile"
"""Between the marks of this name, docs/performance.md has the table."""

LEAST_SHARE: Final = 0.01
"""Layers below it in every column are added up."""

REST: Final = "Event loop, sockets, gRPC's core, threads of C"
_OTHERS: Final = "Others"
_KINDS: Final = {"unary": UNARY, "chunks": BURST}
_PACKAGE: Final = re.compile(r"/site-packages/([^/.]+)")

Shares = Mapping[str, float]


def layer(file: str, tree: Path) -> str:
    """Return the layer of a file: a folder of this project, a package, or the standard library."""
    path = Path(file)
    if package := _PACKAGE.search(file):
        return package[1]
    if file == SQLITE:
        return "SQLite"
    if path.parent == Path(__file__).parent:
        return REST  # the profiler
    if path.is_relative_to(tree):
        folders = path.relative_to(tree).parent.parts
        return "/".join(part for part in folders if part != "protos")
    return "asyncio" if "/asyncio/" in file else "standard library"


async def profile(plans: Sequence[Plan], seconds: float) -> dict[str, Shares]:
    """Return the shares of the layers, by topology and kind of request."""
    core, others = cores()
    upstream, port = start_upstream(others)
    found: dict[str, Shares] = {}
    try:
        for plan in plans:
            with TemporaryDirectory(prefix="bench-") as name:
                system = start(plan, port, Path(name), core, wrapper=Path(profiled.__file__))
                try:
                    await system.ready()
                    for kind, request in _KINDS.items():
                        found[f"{plan.label}, {kind}"] = await _shares(system, request, seconds)
                finally:
                    system.stop()
    finally:
        upstream.kill()
        upstream.wait()
    return found


async def _shares(system: System, request: Request, seconds: float) -> Shares:
    async with connected(system.target, CALLERS) as callers:
        await drive.closed(callers, request, seconds / 2)
        before, cpu = await _snapshot(system), system.cpu_seconds()
        await drive.closed(callers, request, seconds)
        after, cpu = await _snapshot(system), system.cpu_seconds() - cpu
    spent: dict[str, float] = defaultdict(float)
    for file, value in after.items():
        spent[layer(file, system.plan.tree)] += value - before.get(file, 0.0)
    spent[REST] = max(0.0, cpu - sum(spent.values()))
    return {name: value / cpu for name, value in spent.items()}


async def _snapshot(system: System) -> Mapping[str, float]:
    """Have every process of a system write what it has spent, and return the sum by file."""
    seconds: dict[str, float] = defaultdict(float)
    for pid, file in system.profiles:
        file.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        while not file.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        for name, value in json.loads(file.read_text(encoding="utf-8")).items():
            seconds[name] += value
    return seconds


def table(found: Mapping[str, Shares]) -> str:
    """Return shares as a table in Markdown, the largest layers first."""
    rows: dict[str, list[float]] = {}
    for name in {name for shares in found.values() for name in shares}:
        row = [shares.get(name, 0.0) for shares in found.values()]
        kept = name if max(row) >= LEAST_SHARE else _OTHERS
        rows[kept] = [a + b for a, b in zip(rows.get(kept, [0.0] * len(row)), row, strict=True)]
    ordered = sorted(rows, key=lambda name: (name == _OTHERS, -sum(rows[name])))
    lines = [("Layer", *found), ("---",) * (1 + len(found))]
    lines += [(f"`{name}`" if _is_code(name) else name, *_cells(rows[name])) for name in ordered]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _is_code(name: str) -> bool:
    return name.split("/", maxsplit=1)[0] in {"service", "restbridge", "chatcompletion", "process"}


def _cells(row: Sequence[float]) -> list[str]:
    return [f"{share:.0%}" if share >= LEAST_SHARE / 2 else "" for share in row]

"""Compares the ledgers of two checkouts after the same 1,000 calls.

    the same calls -> this tree and another, each with a store of its own -> ledgers -> difference

    python -m tests.load.ledger_sums --against ../before

Whatever makes a call cheaper must not change what it costs the caller. Half of the calls are
streamed. They differ in the lengths of prompt and completion; some upstreams report no usage or
break off. The simulator of this tree is the upstream of both, so its answers are the same. The exit
status is 1 if the ledgers differ.
"""

import argparse
import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvloop

from tests.load import kernel
from tests.load.clients import Request, UnexpectedError, connected
from tests.load.systems import ROOT, STORE, Plan, start

CALLS: Final = 1000
AT_ONCE: Final = 16
WHOLE: Final[Mapping[str, str]] = {
    "instant": "sim:tokens=48",
    **{f"tokens-{tokens}": f"sim:tokens={tokens}" for tokens in (1, 7, 150, 400)},
    "usage-often": "sim-fault:usage-in-every-chunk",
}
ODD: Final[Mapping[str, str]] = {
    "usage-missing": "sim-fault:usage-missing",
    "cut": "sim-fault:cut-chunked-body",
    "reset": "sim-fault:reset-mid-stream",
}
"""Models whose charge is a count of what was delivered."""

_COLUMNS: Final = "model, kind, amount, prompt_tokens, completion_tokens, partial, estimated"
_ENTRIES: Final = f"SELECT {_COLUMNS} FROM ledger WHERE hold_id IS NOT NULL"  # noqa: S608
Entry = tuple[str, int, int, int, int, int, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.ledger_sums", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--against", type=Path, required=True, metavar="DIR")
    parser.add_argument("--topology", default="standalone", help="default: %(default)s")
    parser.add_argument("--calls", type=int, default=CALLS, help="default: %(default)s")
    asked = parser.parse_args(arguments)
    trees = (ROOT, asked.against.resolve())
    with _simulator() as upstream:
        here, there = (uvloop.run(_ledger(tree, asked, upstream)) for tree in trees)
    print(f"{'':24}{'entries':>9}{'prompt':>12}{'completion':>12}{'nano-credits':>16}")
    for tree, entries in zip(trees, (here, there), strict=True):
        for what, models in (("whole answers", WHOLE), ("odd answers", ODD)):
            _print_sums(f"{tree.name}, {what}", [one for one in entries if one[0] in models])
    difference = Counter(here) - Counter(there), Counter(there) - Counter(here)
    for more, tree in zip(difference, trees, strict=True):
        for entry, count in more.most_common(10):
            print(f"only in {tree.name}: {count} x ({_COLUMNS}) = {entry}")
    return 1 if difference[0] or difference[1] else 0


def _print_sums(name: str, entries: Sequence[Entry]) -> None:
    amount = -sum(entry[2] for entry in entries)
    prompt, completion = (
        sum(tokens) for tokens in zip(*(entry[3:5] for entry in entries), strict=True)
    )
    print(f"{name:24}{len(entries):>9,}{prompt:>12,}{completion:>12,}{amount:>16,}")


def calls(count: int) -> Iterator[Request]:
    """Yield so many calls, the same at each time."""
    models = (*WHOLE, *WHOLE, *ODD)
    for index in range(count):
        yield Request(
            model=models[index // 2 % len(models)],
            streamed=index % 2 == 1,
            prompt="A sentence about the sea. " * (1 + index % 29),
        )


@contextlib.contextmanager
def _simulator() -> Iterator[int]:
    """Run the simulator; yield its port."""
    port = kernel.free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.simulator", "--listen", f"127.0.0.1:{port}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


async def _ledger(tree: Path, asked: argparse.Namespace, upstream: int) -> list[Entry]:
    """Make the calls to a checkout's system and return the entries of its ledger, in order."""
    with TemporaryDirectory() as place:
        directory = Path(place)
        plan = Plan(label=tree.name, topology=asked.topology, tree=tree)
        cores = os.sched_getaffinity(0)
        system = start(plan, upstream, directory, cores, models={**WHOLE, **ODD})
        try:
            await system.ready()
            left = calls(asked.calls)

            async def caller() -> None:
                for request in left:
                    async with connected(system.target, 1) as (one,):
                        # What broke off is charged, too.
                        with contextlib.suppress(UnexpectedError):
                            await one.ask(request)

            await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
            await system.end()
        finally:
            system.stop()
        with contextlib.closing(sqlite3.connect(directory / STORE)) as store:
            return sorted(store.execute(_ENTRIES).fetchall())


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: what a request costs in each topology, and how long it takes.

    python -m tests.load.bench                            every topology, five rounds
    python -m tests.load.bench --quick --only unary       the first figures within a minute
    python -m tests.load.bench --against ../before        this tree and another, and their ratios
    python -m tests.load.bench --peers                    LiteLLM in the same rounds

A round starts every system anew, warms it up, and takes one slice of each measure: a slice of the
first system, of the second, of the third, then the next measure. The order of the systems is
reversed from round to round. The systems run on one core, load and upstream on the others.
docs/performance.md defines each measure.
"""

import argparse
import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from tests.load import drive, kernel, layers
from tests.load.clients import Target, connected
from tests.load.measures import BURST, CALLERS, MEASURES, OPTIONAL, UNARY, Subject
from tests.load.report import MARK, Report, between, read
from tests.load.systems import (
    ECHOES,
    KEY,
    LITELLM,
    ON_REQUEST,
    OURS,
    PEERS,
    ROOT,
    TWO_WORKERS,
    WORKERS,
    Plan,
    litellm_version,
    start,
    start_upstream,
)

PAGE = ROOT / "docs" / "performance.md"
JSON = Path("bench.json")
USUAL, QUICK = (5, 2.0), (3, 0.5)
"""How many rounds, and the seconds of a slice."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.write_docs and not asked.profile:
        _write_docs(MARK, read(asked.write_docs).tables())
        return 0
    rounds, seconds = QUICK if asked.quick else USUAL
    asked.rounds, asked.seconds = asked.rounds or rounds, asked.seconds or seconds
    plans, pairs = _plans(parser, asked)
    kernel.allow_descriptors()
    if asked.profile:
        shares = uvloop.run(layers.profile(plans[: len(asked.topology.split(","))], asked.seconds))
        print(layers.table(shares))
        if asked.write_docs:
            _write_docs(layers.MARK, layers.table(shares))
        return 0
    report = uvloop.run(_run(asked, plans, pairs))
    asked.json.write_text(report.to_json(), encoding="utf-8")
    print(report.tables())
    print(f"\nEvery value: {asked.json}", file=sys.stderr)
    return 0


def _write_docs(mark: str, text: str) -> None:
    before, _, after = between(PAGE.read_text(encoding="utf-8"), mark)
    PAGE.write_text(f"{before}{text}{after}", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    usual = ",".join(name for name in MEASURES if name not in OPTIONAL)
    add = parser.add_argument
    add("--topology", default=",".join(OURS), help=f"some of %(default)s,{','.join(ON_REQUEST)}")
    add("--only", default=usual, help=f"some of {','.join(MEASURES)}; default: %(default)s")
    add("--against", type=Path, metavar="DIR", help="another checkout, measured in the same rounds")
    add("--peers", action="store_true", help=f"measure LiteLLM, too, of {PEERS.name}")
    add("--rounds", type=int, help=f"default: {USUAL[0]}")
    add("--seconds", type=float, help=f"how long a slice lasts; default: {USUAL[1]:g}")
    add("--quick", action="store_true", help=f"{QUICK[0]} rounds, slices of {QUICK[1]:g} s")
    add("--profile", action="store_true", help="print the shares of the layers under cProfile")
    add("--json", type=Path, default=JSON, help="where the JSON goes; default: %(default)s")
    add(
        "--write-docs",
        type=Path,
        nargs="?",
        const=JSON,
        metavar="JSON",
        help=f"write the tables of an earlier run into {PAGE.relative_to(ROOT)}, "
        "measuring nothing; with --profile, measure, and write its table",
    )
    return parser


def _plans(
    parser: argparse.ArgumentParser, asked: argparse.Namespace
) -> tuple[list[Plan], list[tuple[str, str]]]:
    """Return what is measured, and the labels to divide."""
    topologies, measures = asked.topology.split(","), asked.only.split(",")
    for name in topologies:
        if name not in (*OURS, *ON_REQUEST):
            parser.error(
                f"--topology: expected some of {', '.join((*OURS, *ON_REQUEST))}, but got {name!r}"
            )
    for name in measures:
        if name not in MEASURES:
            parser.error(f"--only: expected some of {', '.join(MEASURES)}, but got {name!r}")
    plans = [Plan(label=topology, topology=topology) for topology in topologies]
    pairs = []
    if {"standalone", TWO_WORKERS} <= set(topologies):
        pairs.append((TWO_WORKERS, "standalone"))
    pairs += [
        (ours, bare)
        for ours, bare in zip(("grpc", "service+bridge"), ECHOES, strict=True)
        if {ours, bare} <= set(topologies)
    ]
    if asked.against:
        tree = asked.against.resolve()
        if not (tree / "restbridge").is_dir():
            parser.error(f"--against: {asked.against} is no checkout of this project")
        for topology in (each for each in topologies if each not in ECHOES):
            label = f"{topology} @{_commit(tree)}"
            plans.append(Plan(label=label, topology=topology, tree=tree))
            pairs.append((topology, label))
    if asked.peers:
        if not (PEERS / "bin" / LITELLM).is_file():
            parser.error(f"--peers: {PEERS.name} has no LiteLLM; `make bench-peers` installs it")
        plans.append(Plan(label=LITELLM, topology=LITELLM))
        pairs += [(LITELLM, each) for each in topologies if each not in ("grpc", *ECHOES)]
    return plans, pairs


async def _run(
    asked: argparse.Namespace, plans: Sequence[Plan], pairs: Sequence[tuple[str, str]]
) -> Report:
    if task := asyncio.current_task():  # a run that is ended leaves no processes
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    core, others = kernel.cores()
    upstream, port = start_upstream(others)
    values: dict[str, dict[str, list[float]]] = {plan.label: {} for plan in plans}
    try:
        with TemporaryDirectory(prefix="bench-") as directory, kernel.on(others):
            machine = {"code": _commit(ROOT), **kernel.machine(Path(directory))}
            if asked.peers:
                machine |= {LITELLM: litellm_version()}
            for index in range(asked.rounds):
                place = Path(directory, str(index))
                async with _started(plans, port, place, core, asked.seconds) as subjects:
                    order = subjects if index % 2 == 0 else subjects[::-1]
                    for name, measure in MEASURES.items():
                        for subject in order if name in asked.only.split(",") else ():
                            label = subject.system.plan.label
                            print(f"round {index + 1}: {name}, {label}", file=sys.stderr)
                            for figure, value in (await measure(subject)).items():
                                values[label].setdefault(figure, []).append(value)
    finally:
        upstream.kill()
        upstream.wait()
    return Report(machine=machine, values=values, pairs=pairs)


@asynccontextmanager
async def _started(
    plans: Sequence[Plan], upstream: int, directory: Path, core: set[int], seconds: float
) -> AsyncIterator[list[Subject]]:
    """Start systems and warm them up; end them."""
    straight = Target(protocol="rest", address=f"127.0.0.1:{upstream}", key=KEY)
    systems = []
    try:
        for index, plan in enumerate(plans):
            place = directory / str(index)
            place.mkdir(parents=True)
            where = core | os.sched_getaffinity(0) if plan.topology in WORKERS else core
            systems.append(start(plan, upstream, place, where))
        for system in systems:
            await system.ready()
        for system in systems:
            async with connected(system.target, CALLERS) as callers:
                for request in (UNARY, BURST):
                    await drive.closed(callers, request, seconds / 2)
        gc.collect()
        gc.freeze()
        yield [Subject(system=system, upstream=straight, seconds=seconds) for system in systems]
    finally:
        for system in systems:
            system.stop()


def _commit(tree: Path) -> str:
    """Return the short name of a checkout's commit, with a plus if files differ from it."""
    found = subprocess.run(
        ["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=+"],  # noqa: S607
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or tree.name


if __name__ == "__main__":
    sys.exit(main())

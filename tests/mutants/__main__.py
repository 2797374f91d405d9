"""`make mutants`: make each mutation in a copy of the tree, and check that its tests fail.

    python -m tests.mutants                    all mutations
    python -m tests.mutants NAME ...           mutations by name
    python -m tests.mutants --sample 12        a sample of 12, which the commit selects
    python -m tests.mutants --list             only the names

killed   a test fails, as it must
skipped  the tests need something that is not installed, such as PostgreSQL; never in CI
LIVES    the tests pass
BROKEN   no verdict: the text is not in the file exactly once, a test is missing, or a timeout

The exit status is 0 if all are killed or skipped, else 1.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from tests.mutants.mutations import Mutation, load, sample
from tests.mutants.tree import LONGEST_RUN, ROOT, Tree

_LINES_SHOWN = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutations")
    parser.add_argument("--sample", type=int, metavar="N", help="only N, which the commit selects")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parallel runs")
    parser.add_argument("--list", action="store_true", help="print the names and exit")
    asked = parser.parse_args(arguments)
    mutations = load()
    unknown = set(asked.names) - {mutation.name for mutation in mutations}
    if unknown:
        parser.error(f"no mutations of these names: {', '.join(sorted(unknown))}")
    if asked.names:
        mutations = tuple(each for each in mutations if each.name in asked.names)
    if asked.sample:
        mutations = sample(mutations, asked.sample, _commit())
    if asked.list:
        print("\n".join(mutation.name for mutation in mutations))  # noqa: T201
        return 0
    return _run(mutations, max(1, min(asked.jobs, len(mutations))))


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def _run(mutations: Sequence[Mutation], jobs: int) -> int:
    began = time.monotonic()
    with TemporaryDirectory(prefix="mutants-") as name:
        first = Tree.of_working_tree(Path(name) / "0")
        baseline = first.test_all(mutations)
        _say(f"their tests pass without any   {baseline.seconds:6.1f} s")
        if baseline.status != 0:
            _say(baseline.output)
            return 1
        trees: SimpleQueue[Tree] = SimpleQueue()
        trees.put(first)
        for number in range(1, jobs):
            trees.put(first.copied(Path(name) / str(number)))

        def judge(mutation: Mutation) -> bool:
            tree = trees.get()
            try:
                return _judge(tree, mutation)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(jobs) as threads:
            killed = list(threads.map(judge, mutations))
    took = time.monotonic() - began
    _say(f"{sum(killed)} of {len(mutations)} mutations in order, {took:.0f} s, {jobs} at a time")
    return 0 if all(killed) else 1


def _judge(tree: Tree, mutation: Mutation) -> bool:
    """Make a mutation, run its tests, print the verdict, and return whether it is killed."""
    try:
        with tree.mutated(mutation):
            run = tree.test(mutation)
    except (OSError, ValueError) as error:
        _say(f"BROKEN            {mutation.name}: {error}")
        return False
    if run.failed:
        _say(f"killed {run.seconds:6.1f} s   {mutation.name}")
        return True
    if run.skipped:
        _say(f"skipped {run.seconds:5.1f} s   {mutation.name}: its tests are not run here")
        return not os.environ.get("CI")
    if run.status == 0:
        _say(f"LIVES  {run.seconds:6.1f} s   {mutation.name}: {mutation.file}: {mutation.text!r}")
        return False
    why = f"no verdict in {LONGEST_RUN:g} s" if run.status is None else f"pytest: {run.status}"
    tail = "\n".join(run.output.splitlines()[-_LINES_SHOWN:])
    _say(f"BROKEN {run.seconds:6.1f} s   {mutation.name}: {why}\n{tail}")
    return False


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

"""The failure catalogue, as a table: `make test-faults`.

    python -m tests.faults                   the tests of this folder, and those of the catalogue
    python -m tests.faults --runs 10         the same ten times, one run after the other
    python -m tests.faults --sample 6        only the tests of 6 faults, which the commit selects
    python -m tests.faults --list            only the faults

    passed 20/20   1.5 s   A  Refuses connections    all 20 runs of its tests passed
    FAILED 19/20   …                                 one did not
    skipped        …                                 its tests need what is not installed
    NO TEST        …                                 none of its tests exists

The exit status is 1 if a test failed, also one that belongs to no row, or if a fault has no test.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.faults.results import RESULTS, ROWS
from tests.support.fault_catalogue import Fault, load, sample
from tests.support.tree import ROOT

_PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-p", "tests.faults.results")
_SIDE_BY_SIDE: Final = (
    *("--numprocesses", "auto", "--maxprocesses", "4"),
    # A few files take most of the time: their tests wait for timeouts.
    *("--dist", "worksteal"),
)
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (a new directory is created there)
_ROOM: Final = 2 * 1024**3
"""The least free bytes of a file system in memory that holds the files of the tests."""
_NOTHING_COLLECTED: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="consecutive runs")
    parser.add_argument("--sample", type=int, metavar="N", help="only N, which the commit selects")
    parser.add_argument("--list", action="store_true", help="print the faults and exit")
    asked = parser.parse_args(arguments)
    faults = load()
    chosen = sample(faults, asked.sample, _commit()) if asked.sample else faults
    if asked.list:
        _say("\n".join(f"{fault.section}  {fault.name}" for fault in chosen))
        return 0
    began = time.monotonic()
    with TemporaryDirectory(prefix="f", dir=_place()) as directory:
        os.chmod(directory, 0o711)  # noqa: S103  (PgBouncer and PostgreSQL run as another user)
        results = Path(directory) / "results"
        results.touch()
        passed = []
        for number in range(asked.runs):
            started = time.monotonic()
            passed.append(_run(chosen, results, is_sample=bool(asked.sample)))
            verdict = "passed" if passed[-1] else "FAILED"
            _say(f"run {number + 1}/{asked.runs} {verdict} in {time.monotonic() - started:.0f} s")
        complete = _print(chosen, results)
    _say(f"{len(chosen)} faults, {asked.runs} runs, {time.monotonic() - began:.0f} s")
    return 0 if all(passed) and complete else 1


def _place() -> Path | None:
    """Return where the files of the tests are: in memory if there is room, as in `postgres`.

    A third of the time in which a service in this process starts is that of `fsync`, which matters
    only if the machine fails. None stands for the default.
    """
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    return _MEMORY if free >= _ROOM and os.access(_MEMORY, os.W_OK) else None


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def _run(faults: Sequence[Fault], results: Path, *, is_sample: bool) -> bool:
    """Run the tests once, append their outcomes to a file, and return whether all passed."""
    functions = sorted({function for fault in faults for function in fault.functions})
    variables = {RESULTS: str(results), "TMPDIR": str(results.parent)}
    if is_sample:
        variables[ROWS] = "\n".join(fault.name for fault in faults)
    else:
        folder = "tests/faults"
        functions = [folder, *(each for each in functions if not each.startswith(folder))]
    parts = ((),) if is_sample else (("-m", "not alone", *_SIDE_BY_SIDE), ("-m", "alone"))
    ended = [
        subprocess.run(  # noqa: S603
            [*_PYTEST, *options, *functions],
            cwd=ROOT,
            env={**os.environ, **variables},
            check=False,
        ).returncode
        for options in parts
    ]
    return all(status in (0, _NOTHING_COLLECTED) for status in ended)


def _print(faults: Sequence[Fault], results: Path) -> bool:
    """Print the table, and return whether each fault has a test and none failed."""
    outcomes = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    complete = True
    for fault in faults:
        its = [each for each in outcomes if fault.is_test_of(each["test"])]
        verdict = _verdict(Counter(each["outcome"] for each in its))
        seconds = sum(each["seconds"] for each in its)
        _say(f"{verdict:<16}{seconds:7.1f} s   {fault.section}  {fault.name}")
        complete = complete and not verdict.startswith(("FAILED", "NO TEST"))
    return complete


def _verdict(outcomes: Counter[str]) -> str:
    ran = outcomes["passed"] + outcomes["failed"]
    if outcomes["failed"]:
        return f"FAILED {outcomes['passed']}/{ran}"
    if ran:
        return f"passed {outcomes['passed']}/{ran}"
    return "skipped" if outcomes["skipped"] else "NO TEST"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

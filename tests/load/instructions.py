"""`make instructions`: how many instructions a unary request and a chunk take, against the record.

    counted_calls, under valgrind -> instructions, at most 5 % above those in docs/performance.md

    python -m tests.load.instructions                 compares; the exit status is 1 if they grew
    python -m tests.load.instructions --write-docs    writes the figures into the record

A count does not depend on what else the machine does, and hardly on its CPU: two runs differ by
about 1 %, because SQLite copies its log into the file now and then. It depends on the versions of
Python and of the packages. The count is of user space, without the kernel. A figure is the
difference between few and many calls, so that what happens once is not in it.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.load.report import between

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "performance.md"
MARK: Final = "instructions"
MOST_GROWTH: Final = 0.05

_FEW, _MANY = 20, 120
_STREAMS: Final = 10
_SHORT, _LONG = 10, 210
_WARM_UP: Final = ("unary 20", f"stream-{_SHORT} 5")
_ROW: Final = re.compile(r"^\| (.+?) \| ([0-9,]+) \|$", re.MULTILINE)
_TOTAL: Final = re.compile(r"^totals: ([0-9]+)$", re.MULTILINE)


class Counted:
    """A process whose instructions are counted while it does a command.

    Args:
        process: `counted_calls` under callgrind.
        directory: Where callgrind writes its counts.
    """

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self._directory = directory
        self._counts = 0

    def do(self, command: str) -> None:
        """Have a command done.

        Raises:
            SystemExit: it failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        if self._process.stdout.readline() != "done\n":
            raise SystemExit((self._directory / "log").read_text(encoding="utf-8")[-4000:])

    def count(self, command: str) -> int:
        """Have a command done, and return how many instructions it took."""
        self._control("--instr=on")
        self.do(command)
        self._control("--dump")
        self._control("--instr=off")
        self._counts += 1
        text = (self._directory / f"counts.{self._counts}").read_text(encoding="utf-8")
        total = _TOTAL.search(text)
        assert total is not None
        return int(total[1])

    def _control(self, option: str) -> None:
        subprocess.run(
            ["callgrind_control", option, str(self._process.pid)],  # noqa: S607
            check=True,
            capture_output=True,
        )


@contextmanager
def counted() -> Iterator[Counted]:
    """Start the process, and end it."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                (
                    *("valgrind", "--tool=callgrind", "--instr-atstart=no"),
                    f"--callgrind-out-file={directory / 'counts'}",
                    *(sys.executable, "-m", "tests.load.counted_calls"),
                ),
                cwd=ROOT,
                env={**os.environ, "PYTHONHASHSEED": "0"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            yield Counted(process, directory)
        finally:
            process.kill()
            process.communicate()


def measure() -> dict[str, int]:
    """Return the instructions of a unary request and of a streamed chunk."""
    with counted() as process:
        for command in _WARM_UP:
            process.do(command)
        few, many = (process.count(f"unary {calls}") for calls in (_FEW, _MANY))
        short, long = (process.count(f"stream-{tokens} {_STREAMS}") for tokens in (_SHORT, _LONG))
    return {
        "A unary request": (many - few) // (_MANY - _FEW),
        "A streamed chunk": (long - short) // (_STREAMS * (_LONG - _SHORT)),
    }


def built() -> str:
    """Return what the counts are for."""
    return f"CPython {sys.version_info.major}.{sys.version_info.minor} on {platform.machine()}"


def table(found: Mapping[str, int]) -> str:
    """Return counts as a table in Markdown, to three digits."""
    head = f"| {built()} | Instructions |\n|---|---|\n"
    return head + "\n".join(f"| {name} | {_rounded(count):,} |" for name, count in found.items())


def _rounded(count: int) -> int:
    return round(count, 3 - len(str(count)))


def recorded(text: str) -> dict[str, int]:
    """Read the counts of a table."""
    return {name: int(count.replace(",", "")) for name, count in _ROW.findall(text)}


def grown(found: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    """Return a line for each count that grew by more than 5 %, or is not in the record."""
    return [
        f"{name}: {count:,} instructions, {before.get(name, 0):,} before"
        for name, count in found.items()
        if count > before.get(name, 0) * (1 + MOST_GROWTH)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.instructions")
    parser.add_argument("--write-docs", action="store_true", help="write the record")
    asked = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is needed: apt-get install valgrind")
    found = measure()
    print(table(found))
    text = PAGE.read_text(encoding="utf-8")
    before, record, after = between(text, MARK)
    if asked.write_docs:
        PAGE.write_text(f"{before}{table(found)}{after}", encoding="utf-8")
        return 0
    if built() not in record:
        print(f"Not compared: {PAGE.name} has no record for {built()}.")
        return 0
    worse = grown(found, recorded(record))
    print("\n".join(worse) or "None grew by more than 5 %.")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

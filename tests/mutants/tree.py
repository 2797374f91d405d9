"""A copy of the working tree, with an interpreter that imports the product from the copy.

The tests start further processes with `sys.executable`. The environment of the copy therefore has
its own interpreter, with a path file that names the copy first, and then the packages of the
environment that runs this.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.mutations import Mutation

ROOT: Final = Path(__file__).parents[2]

LONGEST_RUN: Final = 150.0
"""Maximum seconds for the tests of one mutation."""
_LIMITS: Final = ("-o", "time_limit=10", "-o", "faulthandler_timeout=45")
"""Maximum seconds for one test, and for one that no signal interrupts. Mutations can make it
hang."""
_LONGEST_BASELINE: Final = 900.0
_FAILED: Final = 1
"""The exit status of pytest if tests ran and one failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The result of running tests."""

    status: int | None
    """pytest's exit status; None if they did not end in time."""
    seconds: float
    output: str

    @property
    def failed(self) -> bool:
        """Whether a test failed, rather than pytest."""
        return self.status == _FAILED

    @property
    def skipped(self) -> bool:
        """Whether no test ran, because all need something that is not installed."""
        return self.status == 0 and not re.search(r"\b\d+ passed\b", self.output)


@dataclass(frozen=True, slots=True)
class Tree:
    """A copy of the working tree.

    Args:
        path: The path of the copy.
    """

    path: Path

    @classmethod
    def of_working_tree(cls, path: Path) -> "Tree":
        """Copy the files that git knows or would add."""
        git = shutil.which("git") or "git"
        listed = subprocess.run(  # noqa: S603  (git)
            [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, path / name)
        tree = cls(path)
        tree.make_environment()
        return tree

    def copied(self, path: Path) -> "Tree":
        """Copy the copy, including compiled files."""
        shutil.copytree(self.path, path, ignore=shutil.ignore_patterns(".venv"))
        tree = Tree(path)
        tree.make_environment()
        return tree

    def make_environment(self) -> None:
        """Create the environment, with the packages of the one that runs this."""
        venv.create(self.path / ".venv", symlinks=True)
        (packages,) = (self.path / ".venv" / "lib").glob("python*/site-packages")
        ours = [self.path, self.path / "protos"]
        theirs = [path for path in sys.path if path.endswith("-packages")]
        (packages / "tree.pth").write_text("".join(f"{path}\n" for path in (*ours, *theirs)))

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Make a mutation for the block.

        Raises:
            ValueError: Its text is not in the file exactly once.
        """
        file = self.path / mutation.file
        before = file.read_text()
        after = mutation.applied(before)
        # Python could use a stale .pyc file: it compares only the size and the second.
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()
        file.write_text(after)
        try:
            yield
        finally:
            file.write_text(before)

    def test(self, mutation: Mutation) -> Run:
        """Run the tests that a mutation must fail, up to the first failure."""
        return self._run(("-x", *mutation.tests), LONGEST_RUN, PYTHONDONTWRITEBYTECODE="1")

    def test_all(self, mutations: Sequence[Mutation]) -> Run:
        """Run the tests of all mutations without a mutation, which also compiles the tests."""
        tests = dict.fromkeys(test for mutation in mutations for test in mutation.tests)
        return self._run(tuple(tests), _LONGEST_BASELINE)

    def _run(self, arguments: Sequence[str], longest: float, **variables: str) -> Run:
        # Examples that hypothesis saved for one mutation must not affect the next.
        shutil.rmtree(self.path / ".hypothesis", ignore_errors=True)
        python = self.path / ".venv" / "bin" / "python"
        # Python's own tracebacks: pytest's parse the sources, which fails after deep recursions.
        usual = ("-q", "--no-header", "--tb=native", "-p", "no:cacheprovider")
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: S603  (the interpreter of the copy)
            [python, "-m", "pytest", *usual, "--hypothesis-seed=0", *_LIMITS, *arguments],
            cwd=self.path,
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",
                "PYTEST_ADDOPTS": "",
                "EXAMPLES": "all",
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=longest)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            # Including the processes that the tests have started.
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = None
        return Run(status=status, seconds=time.monotonic() - began, output=output)

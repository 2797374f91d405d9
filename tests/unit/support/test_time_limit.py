"""A test that hangs fails under its name, and later tests run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tree import ROOT, files

HANGING = """
import asyncio, threading, time
import pytest

pytestmark = pytest.mark.time_limit(0.2)


async def test_waits():
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        print("released")


async def test_survives_its_cancellation():
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        pass


async def test_raises_a_timeout_of_its_own():
    async with asyncio.timeout(0.01):
        await asyncio.get_running_loop().create_future()


async def test_blocks_its_loop():
    while True:
        pass


def test_waits_for_a_lock():
    threading.Event().wait()


@pytest.fixture
def slow():
    threading.Event().wait()


def test_waits_for_a_fixture(slow):
    pass


@pytest.fixture
def leaving():
    yield
    threading.Event().wait()


def test_waits_for_the_end_of_a_fixture(leaving):
    pass


@pytest.mark.time_limit(30)
async def test_has_a_limit_of_its_own():
    await asyncio.sleep(0.3)


def test_is_quick():
    pass
"""
NUMBER = """
import pytest


def test_computes_in_c():
    10 ** (10 ** 9) % 7
"""


def run(directory: Path, content: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest on a file, with the plugin and the project's mode for async tests."""
    file = directory / "test_it.py"
    file.write_text(content.replace("import pytest\n", _SOON, 1))
    return subprocess.run(  # noqa: S603  (our own interpreter)
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.support.time_limit", "-rA"),
            *("-o", "asyncio_mode=auto", "-p", "no:cacheprovider", *options, str(file)),
        ],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


_SOON = """import pytest
from tests.support import time_limit
time_limit._LATER = 0.2
"""


SIDE_BY_SIDE = ("--numprocesses", "1")
"""As `make test` runs most tests: in processes of pytest-xdist."""


def assert_a_hang_has_a_name(ran: "subprocess.CompletedProcess[str]") -> None:
    verdicts = dict(re.findall(r"^(?:FAILED|ERROR|PASSED) \S+::(\w+)(.*)$", ran.stdout, re.M))
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert {name: bool(text) for name, text in verdicts.items()} == {
        "test_waits": True,
        "test_survives_its_cancellation": True,
        "test_raises_a_timeout_of_its_own": True,
        "test_blocks_its_loop": True,
        "test_waits_for_a_lock": True,
        "test_waits_for_a_fixture": True,
        "test_waits_for_the_end_of_a_fixture": True,
        "test_has_a_limit_of_its_own": False,
        "test_is_quick": False,
    }
    assert "released" in ran.stdout
    assert verdicts["test_waits"] == " - Failed: The test took longer than its time limit of 0.2 s."
    assert "time limit" not in verdicts["test_raises_a_timeout_of_its_own"]


def test_a_hang_is_a_failure_with_a_name(tmp_path: Path) -> None:
    assert_a_hang_has_a_name(run(tmp_path, HANGING))


def test_a_hang_side_by_side_is_a_failure_with_a_name(tmp_path: Path) -> None:
    assert_a_hang_has_a_name(run(tmp_path, HANGING, *SIDE_BY_SIDE))


LAST_RESORT = ("-o", "faulthandler_timeout=1", "-o", "faulthandler_exit_on_timeout=true")


def test_what_no_signal_interrupts_ends_with_the_stacks(tmp_path: Path) -> None:
    ran = run(tmp_path, NUMBER, *LAST_RESORT)
    assert ran.returncode == 1
    assert "Timeout" in ran.stderr
    assert "in test_computes_in_c" in ran.stderr


def test_what_no_signal_interrupts_side_by_side_ends_with_its_name(tmp_path: Path) -> None:
    ran = run(tmp_path, NUMBER, *LAST_RESORT, *SIDE_BY_SIDE)
    assert ran.returncode == 1
    assert "Timeout" in ran.stderr
    assert "in test_computes_in_c" in ran.stderr
    assert "crashed while running 'test_it.py::test_computes_in_c'" in ran.stdout


def test_the_last_resort_is_later_than_every_limit(pytestconfig: pytest.Config) -> None:
    marks = re.compile(r"^ *@?(?:pytestmark = )?pytest\.mark\.time_limit\((\d+)\)$", re.MULTILINE)
    limits = [
        int(seconds)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for seconds in marks.findall(path.read_text())
    ]
    assert limits
    last = float(pytestconfig.getini("faulthandler_timeout"))
    assert pytestconfig.getini("faulthandler_exit_on_timeout") is True
    assert max(limits) < last <= 600


def test_files_that_are_left_are_found(tmp_path: Path) -> None:
    (tmp_path / "sub" / "__pycache__").mkdir(parents=True)
    before = files(tmp_path)
    (tmp_path / "sub" / "__pycache__" / "a.pyc").touch()
    (tmp_path / "sub" / "chatcompletion.sqlite3").touch()
    assert files(tmp_path) - before == {"sub/chatcompletion.sqlite3"}

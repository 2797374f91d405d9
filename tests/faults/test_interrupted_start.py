"""SIGINT at any moment of the start: the process ends, and prints no traceback."""

import signal
import sys
from contextlib import suppress
from typing import Final

import pytest

from tests.support.processes import environment, run
from tests.support.tree import ROOT

BRIDGE: Final = {
    "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
    "CHAT_BRIDGE_METRICS_LISTEN": "none",
    "CHAT_BRIDGE_DRAIN_DELAY": "0",
}
PROGRAMS: Final = {
    "service": (("service",), environment()),
    "workers": (("service", "--workers", "2"), environment()),
    "bridge": (("restbridge",), BRIDGE),
    "standalone": (("restbridge", "--standalone"), environment(**BRIDGE)),
    "command": (("service", "accounts", "create", "acme", "--new-store"), environment()),
    "client": (("chat", "--help"), {}),
    "simulator": (("service.simulator", "--help"), {}),
}
POINTS: Final = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.94, 0.97, 0.98, 0.99)
"""Parts of a start, most of them near its end, when the program begins to handle signals."""


async def interrupted(program: str, moment: int) -> tuple[int, list[str]]:
    """Interrupt a program at a moment of its start, or when it serves.

    Returns:
        Its exit status, and the lines on its standard error.
    """
    arguments, variables = PROGRAMS[program]
    command = (sys.executable, "-m", "tests.faults.interrupted", str(moment), *arguments)
    variables = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", **variables}
    async with run(command, variables) as running:
        with suppress(AssertionError):  # it has ended
            await running.event("serving")
            running.send(signal.SIGINT)
        return await running.exit_status(), running.lines


async def ends(program: str) -> list[int]:
    """Interrupt a program at each point of its start, and return its exit statuses."""
    status, lines = await interrupted(program, 0)
    assert status == 0, lines
    moments = int(lines[-1].removeprefix("moments "))
    found = []
    for point in POINTS:
        status, lines = await interrupted(program, 1 + int(moments * point))
        text = "\n".join(lines)
        assert "Traceback" not in text
        assert "KeyboardInterrupt" not in text
        found.append(status)
    return found


@pytest.mark.parametrize("program", ["service", "workers", "bridge", "standalone"])
@pytest.mark.time_limit(180)
async def test_an_interrupted_start_leaves_no_traceback(program: str) -> None:
    first, *others = await ends(program)
    assert first == -signal.SIGINT  # it did not handle signals yet
    assert {-signal.SIGINT, 0}.issuperset(others)  # or it had started, and drained


@pytest.mark.time_limit(180)
async def test_an_interrupted_command_exits_with_130() -> None:
    first, *others = await ends("command")
    assert first == -signal.SIGINT
    assert {-signal.SIGINT, 130, 0}.issuperset(others)  # or it was over
    assert 130 in others


@pytest.mark.parametrize("program", ["client", "simulator"])
@pytest.mark.time_limit(180)
async def test_an_interrupted_program_leaves_no_traceback(program: str) -> None:
    first, *others = await ends(program)
    assert first == -signal.SIGINT
    assert {-signal.SIGINT, 130, 0}.issuperset(others)

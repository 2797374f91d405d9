"""Runs the programs of outside suites."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TOOLS: Final = ROOT / ".conformance"
"""The folder of installed programs, which `make conformance` fills."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A program that has ended."""

    status: int
    output: str
    """The standard output and the standard error."""


async def run(
    *command: str | Path,
    longest: float,
    environment: Mapping[str, str] | None = None,
    directory: Path = ROOT,
) -> Finished:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        longest: Maximum duration in seconds; the program is killed after it.
        environment: Variables in addition to those of this process.
        directory: The working directory.

    Raises:
        TimeoutError: The program took too long.
    """
    child = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=directory,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(longest):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return Finished(status=child.returncode, output=output.decode(errors="replace"))

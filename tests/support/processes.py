"""A deployable in a process of its own; what still runs at the end is killed.

process("service", {...})     `python -m service`, from "serving" to its exit status
service_process()             the same until it is SERVING, with a client of it
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.grpc_client import KEY, Client, client, serving
from tests.support.waiting import PATIENCE


@dataclass(kw_only=True, slots=True, eq=False)
class Process:
    """A deployable in a process of its own."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    """What it wrote to its standard error so far."""
    output: bytes = b""
    """What it wrote to its standard output, once it ended."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    async def event(self, name: str) -> dict[str, Any]:
        """Return the first log line of that event; waits for it.

        Raises:
            AssertionError: the process ended without, or `PATIENCE` did.
        """
        seen = 0
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.lines[seen:]:
                    seen += 1
                    with suppress(ValueError):
                        members: dict[str, Any] = json.loads(line)
                        if members["event"] == name:
                            return members
                assert not self._over, f"ended without {name!r}: {self.lines}"
                self._news.clear()
                await self._news.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of that event so far."""
        parsed = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [members for members in parsed if members["event"] == name]

    async def address(self) -> str:
        """Return where it serves, as host:port; waits until it does."""
        return str((await self.event("serving"))["address"])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        """Wait for its end and return its exit status; negative is the signal that ended it."""
        async with asyncio.timeout(PATIENCE):
            while not self._over:
                self._news.clear()
                await self._news.wait()
            return await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))
            self._news.set()
        self.output = await self.process.stdout.read()
        self._over = True
        self._news.set()


@asynccontextmanager
async def process(
    module: str, environment: Mapping[str, str], *arguments: str
) -> AsyncIterator[Process]:
    """Run `python -m module`; what still runs at the end is killed.

    Args:
        module: "service" or another that can be run.
        environment: The whole environment, but for PATH. For a service, see `environment`.
        arguments: Of the command line.
    """
    # The accounts are a file where the process runs, unless a setting says otherwise.
    directory = TemporaryDirectory()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=directory.name,
        env={"PATH": os.environ.get("PATH", ""), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    running = Process(process=child)
    reading = asyncio.create_task(running._read())
    try:
        yield running
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
                child.kill()
        await child.wait()
        await reading
        # The transport of the pipes closes in a callback after the last of them.
        await asyncio.sleep(0)
        directory.cleanup()


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a service for tests: like `settings`, as variables."""
    return {
        "CHAT_LISTEN": "127.0.0.1:0",
        "CHAT_METRICS_LISTEN": "none",
        "CHAT_BOOTSTRAP_API_KEY": KEY,
        "CHAT_DRAIN_DELAY": "0",
        "CHAT_DRAIN_GRACE": "0",
        "CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN": "0",
        "CHAT_SIMULATOR_INTER_TOKEN_DELAY": "0",
        **changes,
    }


@asynccontextmanager
async def service_process(**changes: str) -> AsyncIterator[tuple[Process, Client]]:
    """Run `python -m service` until it is SERVING, with a client of it.

    Args:
        changes: Variables in addition to `environment`.
    """
    async with (
        process("service", environment(**changes)) as running,
        client(await running.address()) as caller,
    ):
        await serving(caller)
        yield running, caller

"""A deployable in a separate process, which is killed at the end.

process("service", {...})     `python -m service`, from "serving" to its exit status
run(command, {...})           the same for another command
service_process()             the same until it is SERVING, with a client of it
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx

from tests.support import canaries
from tests.support.grpc_client import KEY, Client, client, serving
from tests.support.waiting import PATIENCE

SCRAPE: Final = 2.0
"""Maximum seconds of a scrape."""


@dataclass(kw_only=True, slots=True, eq=False)
class Process:
    """A deployable in a separate process."""

    process: asyncio.subprocess.Process
    directory: str
    """Its working directory, which is removed at the end."""
    lines: list[str] = field(default_factory=list)
    """The lines on its standard error so far."""
    output: bytes = b""
    """Its standard output, set when it has ended."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for the first log line of an event, and return it.

        Raises:
            AssertionError: The process ended without it, or it did not appear within `PATIENCE`.
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
        """Return the log lines of an event so far."""
        return [members for members in self.every_event() if members["event"] == name]

    def every_event(self) -> list[dict[str, Any]]:
        """Return all log lines so far."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    async def address(self) -> str:
        """Wait until it serves, and return its address as host:port."""
        return str((await self.event("serving"))["address"])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        """Wait for its end and return its exit status; negative if a signal ended it."""
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


async def _search_metrics(running: Process) -> None:
    """Search the metrics of a process that serves some, as a scraper reads them."""
    if running.process.returncode is not None:
        return
    for line in running.events("serving"):
        if port := line.get("metrics_port"):
            with suppress(httpx.HTTPError):  # the process is stopped, or ends
                async with httpx.AsyncClient(trust_env=False, timeout=SCRAPE) as client:
                    scraped = await client.get(f"http://127.0.0.1:{port}/metrics")
                canaries.search("a scrape", scraped.text)


@asynccontextmanager
async def process(
    module: str, environment: Mapping[str, str], *arguments: str
) -> AsyncIterator[Process]:
    """Run `python -m module`, and kill it at the end.

    Args:
        module: "service", or another module that can be run.
        environment: The environment without PATH. For a service, use `environment`.
        arguments: The arguments of the command line.
    """
    async with run((sys.executable, "-m", module, *arguments), environment) as running:
        yield running


@asynccontextmanager
async def run(command: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[Process]:
    """Run a command, and kill it at the end.

    Args:
        command: The program and its arguments.
        environment: The environment without PATH.
    """
    # By default, the store is a file in the working directory of the process.
    directory = TemporaryDirectory()
    # `check` lists the variables that are set.
    level = {} if "check" in command else {"CHAT_LOG_LEVEL": "debug"}
    child = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory.name,
        env={"PATH": os.environ.get("PATH", ""), **level, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    running = Process(process=child, directory=directory.name)
    reading = asyncio.create_task(running._read())
    try:
        yield running
    finally:
        await _search_metrics(running)
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
                child.kill()
        await child.wait()
        await reading
        said = [*running.lines, *running.output.decode(errors="replace").splitlines()]
        if "--standalone" in command:
            # What it prints for people has a key on purpose; its log lines have none.
            said = [line for line in said if line.startswith("{")]
        canaries.search(f"the output of {' '.join(command[1:3])}", "\n".join(said))
        # asyncio closes the transport of the pipes in a later callback.
        await asyncio.sleep(0)
        directory.cleanup()


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a service for tests, with the values of `settings`."""
    return {
        "CHAT_LISTEN": "127.0.0.1:0",
        "CHAT_METRICS_LISTEN": "none",
        "CHAT_UPSTREAM_BASE_URL": "simulator",
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

"""A worker process as its supervisor sees it, from start to end."""

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from process.workers.arguments import Position
from process.workers.frames import (
    HEAD,
    LONGEST,
    Family,
    Scrape,
    Serving,
    Signal,
    frame,
    to_supervisor,
)

ANSWER_WITHIN: Final = 1.0
"""Seconds that a worker has for its metrics."""

_MOST_QUESTIONS: Final = 16


async def start(command: Sequence[str], environment: Mapping[str, str], number: int) -> "Child":
    """Start a worker.

    Args:
        command: What to run; its position is added.
        environment: All of it.
        number: Its number, from 1.

    Raises:
        OSError: The system has no room for another process.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            position = Position(number=number, socket=theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *command, *position.arguments(), env=environment, pass_fds=(position.socket,)
            )
    except BaseException:
        ours.close()
        raise
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    return Child(number, process, reader, writer)


class Child:
    """One process that is a worker.

    Args:
        number: Its number, from 1.
        process: The process.
        reader: What it sends.
        writer: What it is sent.
    """

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.began = loop.time()
        self._process = process
        self._reader = reader
        self._writer = writer
        self._questions: dict[int, asyncio.Future[list[Family]]] = {}
        self._asked = 0
        self._serves = asyncio.Event()
        self._end = loop.create_task(self._live())

    @property
    def serves(self) -> bool:
        """Whether it serves."""
        return self._serves.is_set()

    async def serving(self) -> bool:
        """Wait until it serves, and return whether it does; False if it ended before."""
        serves = asyncio.create_task(self._serves.wait())
        await asyncio.wait((serves, self._end), return_when=asyncio.FIRST_COMPLETED)
        serves.cancel()
        return self.serves and not self._end.done()

    async def ended(self) -> int:
        """Wait for its end and return its exit status; negative is the signal that ended it."""
        return await asyncio.shield(self._end)

    def send(self, number: signal.Signals) -> None:
        """Have it act as if it had received a signal."""
        if not self._end.done():
            self._writer.write(frame(Signal(number)))

    def kill(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def scrape(self, registry: int) -> list[Family] | None:
        """Return its metrics, or None if it does not answer within `ANSWER_WITHIN`."""
        if len(self._questions) >= _MOST_QUESTIONS:
            return None
        self._asked += 1
        number = self._asked
        answer = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        self._writer.write(frame(Scrape(number, registry)))
        done, _ = await asyncio.wait((answer,), timeout=ANSWER_WITHIN)
        # A question stays open until its answer arrives: a silent worker is not asked again.
        return answer.result() if done and not answer.cancelled() else None

    async def _live(self) -> int:
        with suppress(OSError, asyncio.IncompleteReadError, msgspec.MsgspecError):
            await self._read()
        self._serves.clear()
        for answer in self._questions.values():
            answer.cancel()
        status = await self._process.wait()
        self._writer.close()
        return status

    async def _read(self) -> None:
        while True:
            (length,) = HEAD.unpack(await self._reader.readexactly(HEAD.size))
            if length > LONGEST:
                return
            message = to_supervisor.decode(await self._reader.readexactly(length))
            if isinstance(message, Serving):
                self._serves.set()
            else:
                answer = self._questions.pop(message.number)
                if not answer.done():
                    answer.set_result(message.families)


def command_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs this program again.

    Args:
        arguments: The interpreter's, as in `sys.orig_argv`.
    """
    return sys.executable, *arguments[1:]

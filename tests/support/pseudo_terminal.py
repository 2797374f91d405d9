"""A program on a terminal of its own, as a person uses it.

async with on_terminal(command, environment) as terminal:
    await terminal.shows("> ")
    terminal.types("Hello\r")
    assert await terminal.exit_status() == 0
"""

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from tests.support.waiting import PATIENCE, until

CTRL_C: Final = "\x03"
CTRL_D: Final = "\x04"

# The terminal must be the controlling one, or Ctrl-C sends no signal. If the tests run in the
# background of a shell, they inherit that SIGINT is ignored.
_START: Final = (
    "import fcntl, os, signal, sys, termios; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(kw_only=True, slots=True)
class Terminal:
    """A program and its terminal."""

    process: asyncio.subprocess.Process
    descriptor: int
    output: str = ""
    """The whole output so far."""
    _seen: int = 0

    async def shows(self, text: str) -> str:
        """Wait until the output after the text that was found last contains a text.

        Returns:
            The output between both.
        """
        await until(lambda: text in self.output[self._seen :], f"{text!r} not in {self.output!r}")
        found = self.output.index(text, self._seen)
        between = self.output[self._seen : found]
        self._seen = found + len(text)
        return between

    def types(self, text: str) -> None:
        """Press keys."""
        os.write(self.descriptor, text.encode())

    async def exit_status(self) -> int:
        """Wait for the end of the program and return its exit status."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    def read(self) -> None:
        """Read what the program has printed."""
        with suppress(OSError):  # the program has ended
            self.output += os.read(self.descriptor, 65536).decode()


@asynccontextmanager
async def on_terminal(
    command: Sequence[str], environment: Mapping[str, str], cwd: str
) -> AsyncIterator[Terminal]:
    """Run a program on a terminal of 80 columns, and kill it at the end.

    Args:
        command: The path of the program, and its arguments.
        environment: The environment without PATH and TERM.
        cwd: The working directory.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    loop = asyncio.get_running_loop()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _START, *command),
            cwd=cwd,
            # Without the answer of a real terminal, prompt_toolkit would wait for it.
            env={
                "PATH": os.environ.get("PATH", ""),
                "TERM": "xterm",
                "PROMPT_TOOLKIT_NO_CPR": "1",
                **environment,
            },
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        terminal = Terminal(process=process, descriptor=ours)
        loop.add_reader(ours, terminal.read)
        try:
            yield terminal
        finally:
            loop.remove_reader(ours)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    finally:
        os.close(ours)
        os.close(theirs)

"""The life of a process: it serves until a signal, then drains.

SIGTERM            drains with the delay of the settings
SIGINT             a person's: drains without the delay
a second of either ends at once what is left
"""

import asyncio
import gc
import signal
from collections.abc import Callable
from typing import Protocol

from process import log


class Stop(Protocol):
    """Drains what was started, and returns when nothing is left."""

    async def __call__(self, *, delay: float | None) -> None:
        """Drain; calls are still accepted for `delay` seconds, or as the settings say."""


class Signals:
    """The signals that end a process, from its construction on. Needs a running event loop."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[signal.Signals] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received.put_nowait, number)

    async def drain(self, logger: str, stop: Stop, hurry: Callable[[], None]) -> None:
        """Wait for a signal, and drain.

        Args:
            logger: Whose log lines tell it.
            stop: Drains.
            hurry: Makes `stop` end at once what is left.
        """
        first = await self._received.get()
        log.event(logger, "draining", signal=first.name)
        stopping = asyncio.ensure_future(stop(delay=0 if first == signal.SIGINT else None))
        second = asyncio.create_task(self._received.get())
        await asyncio.wait((stopping, second), return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            hurry()
        second.cancel()
        await stopping
        log.event(logger, "stopped")


def settle() -> None:
    """Have the collector leave alone what stands now: it stands for the life of the process."""
    gc.collect()
    gc.freeze()

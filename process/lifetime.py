"""The lifetime of a process: it serves until a signal, then drains.

SIGTERM            drains, after the configured delay
SIGINT             drains without the delay, because a person sent it
a second signal    ends the delay and the grace immediately
"""

import asyncio
import gc
import signal
from collections.abc import Callable
from typing import Protocol

from process import log


class Stop(Protocol):
    """Drains the process and returns when all work has ended."""

    async def __call__(self, *, delay: float | None) -> None:
        """Drain after `delay` seconds, or after the configured delay if it is None."""


class Source(Protocol):
    """A supervisor, which passes its signals on."""

    def listen(self, receive: Callable[[signal.Signals], None]) -> None:
        """Call `receive` with each signal, from any thread."""


class Signals:
    """Handles the signals that end a process. The constructor needs a running event loop.

    Args:
        source: The supervisor, or None to handle the signals of this process.
    """

    def __init__(self, source: Source | None = None) -> None:
        self._received: asyncio.Queue[signal.Signals] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def receive(number: signal.Signals) -> None:
            loop.call_soon_threadsafe(self._received.put_nowait, number)

        if source is not None:
            source.listen(receive)
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received.put_nowait, number)

    async def drain(self, logger: str, stop: Stop, hurry: Callable[[], None]) -> None:
        """Wait for a signal, then drain.

        Args:
            logger: The name of the logger.
            stop: Drains the process.
            hurry: Makes `stop` end the remaining work immediately.
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
    """Exclude all current objects from garbage collection: they live as long as the process."""
    gc.collect()
    gc.freeze()

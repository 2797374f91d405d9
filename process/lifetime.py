"""The lifetime of a process: it serves until a signal, then drains.

SIGTERM            drains, after the configured delay
SIGINT             drains without the delay, because a person sent it
a second signal    ends the delay and the grace immediately
SIGHUP             reloads what can be reloaded; it never ends the process
"""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Event
from typing import Final, Protocol

from process import free_memory, log

SECOND: Final = "a second signal ends the remaining calls immediately"
"""What a person can do during a drain; on its log line."""


class Stop(Protocol):
    """Drains the process and returns when all work has ended."""

    async def __call__(self, *, delay: float | None) -> None:
        """Drain after `delay` seconds, or after the configured delay if it is None."""


class Source(Protocol):
    """A supervisor, which passes its signals on."""

    def listen(self, receive: Callable[[signal.Signals], None]) -> None:
        """Call `receive` with each signal, from any thread."""


Reload = Callable[[], Awaitable[None]]
"""Reloads what can be reloaded, and reports errors in the log instead of raising them."""

_EARLY: Final = Event()
"""Set by a SIGHUP that arrived before the event loop handles signals."""


def remember_hang_ups() -> None:
    """Keep SIGHUP from ending this process, and handle it once `Signals` exists."""
    signal.signal(signal.SIGHUP, lambda *_: _EARLY.set())


class Signals:
    """Handles the signals that end a process. The constructor needs a running event loop.

    Args:
        source: The supervisor, or None to handle the signals of this process.
    """

    def __init__(self, source: Source | None = None) -> None:
        self._received: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._hung_up = asyncio.Event()
        loop = asyncio.get_running_loop()

        def receive(number: signal.Signals) -> None:
            loop.call_soon_threadsafe(self._receive, number)

        if source is not None:
            source.listen(receive)
            return
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._receive, number)
        if _EARLY.is_set():
            _EARLY.clear()
            self._hung_up.set()

    def _receive(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            self._hung_up.set()
        else:
            self._received.put_nowait(number)

    async def drain(
        self, logger: str, stop: Stop, hurry: Callable[[], None], reload: Reload | None = None
    ) -> None:
        """Wait for a signal that ends the process, then drain.

        Until then, reload at each SIGHUP, and return freed memory to the system.

        Args:
            logger: The name of the logger.
            stop: Drains the process.
            hurry: Makes `stop` end the remaining work immediately.
            reload: Reloads what can be reloaded; None if that is nothing.
        """
        besides = (
            asyncio.create_task(self._reload(logger, reload)),
            asyncio.create_task(free_memory.keep_returning()),
        )
        first = await self._received.get()
        for task in besides:
            task.cancel()
        for task in besides:
            with suppress(asyncio.CancelledError):
                await task
        log.event(logger, "draining", signal=first.name, hint=SECOND)
        stopping = asyncio.ensure_future(stop(delay=0 if first == signal.SIGINT else None))
        second = asyncio.create_task(self._received.get())
        await asyncio.wait((stopping, second), return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            log.event(logger, "ending calls", signal=second.result().name)
            hurry()
        second.cancel()
        await stopping
        log.event(logger, "stopped")

    async def _reload(self, logger: str, reload: Reload | None) -> None:
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            if reload is None:
                log.event(logger, "nothing to reload", signal="SIGHUP")
            else:
                await reload()


_YOUNG: Final = 10_000
"""New objects after which garbage is collected. Calls leave none, but while many of them run, their
objects come and go by the thousand: with Python's 700, a collection follows every tenth call."""


def settle() -> None:
    """Exclude all current objects from garbage collection: they live as long as the process.

    From now on, collect garbage less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])

"""The clock of the bridge. It is passed in, so that tests do not wait."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancel the call."""


class Clock(Protocol):
    """A clock with timers."""

    def time(self) -> float:
        """Return a monotonic time in seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back after so many seconds."""


class LoopClock:
    """The timers of the running event loop, with the system's monotonic clock.

    An event loop's own clock can be as coarse as a millisecond.
    """

    def time(self) -> float:
        """Return a monotonic time in seconds."""
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back after so many seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)

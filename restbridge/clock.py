"""Time, as the bridge asks for it; passed in, so that no test waits."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Have it not happen."""


class Clock(Protocol):
    """A clock that can call back."""

    def time(self) -> float:
        """Return a monotonic time in seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back after so many seconds."""


class LoopClock:
    """The clock of the running event loop.

    Reads the system's clock: an event loop's own may be as coarse as a millisecond.
    """

    def time(self) -> float:
        """Return a monotonic time in seconds."""
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back after so many seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)

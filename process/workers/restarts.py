"""When a worker that ended starts again."""

from typing import Final

FIRST: Final = 0.1
LONGEST: Final = 10.0
HEALTHY: Final = 60.0
"""Seconds after which a worker that ended was no worker that cannot run."""


class Restarts:
    """The restarts of one worker: each waits twice as long as the one before."""

    def __init__(self) -> None:
        self._delay = FIRST

    def after(self, lived: float) -> float:
        """Return how long to wait before the next start, in seconds from `FIRST` to `LONGEST`.

        Args:
            lived: How long the worker ran, in seconds.
        """
        if lived >= HEALTHY:
            self._delay = FIRST
        delay, self._delay = self._delay, min(2 * self._delay, LONGEST)
        return delay

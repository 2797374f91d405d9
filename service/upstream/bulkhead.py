"""The places at an upstream: a bound on its calls, so that it cannot starve the others.

    take  -> a free place, if no call waits for one
    wait  -> the next place that becomes free, for the first call that waits
    leave -> the place goes to the first call that waits

Needs an event loop, but no sockets.
"""

import asyncio


class NoPlaceError(Exception):
    """As many calls wait as can, or no place became free in time."""


class Bulkhead:
    """The places at one upstream.

    Args:
        most: Maximum calls at a time.
        most_waiting: Maximum calls that wait for a place.
    """

    def __init__(self, most: int, most_waiting: int) -> None:
        self._most = most
        self._most_waiting = most_waiting
        self._waiters: dict[asyncio.Future[None], None] = {}
        """The calls that wait, the one that waits for longest first."""
        self.running = 0
        """The number of calls with a place."""

    @property
    def waiting(self) -> int:
        """The number of calls that wait."""
        return len(self._waiters)

    def resize(self, most: int, most_waiting: int) -> None:
        """Change the bounds. Calls that have a place or wait for one keep it."""
        self._most, self._most_waiting = most, most_waiting
        self._hand_on()

    def take(self) -> bool:
        """Take a free place. Return whether there was one."""
        if self.running >= self._most or self._waiters:
            return False
        self.running += 1
        return True

    @property
    def has_room(self) -> bool:
        """Whether a further call can wait."""
        return len(self._waiters) < self._most_waiting

    async def wait(self, patience: float) -> None:
        """Wait for a place, and take it.

        Args:
            patience: Maximum seconds.

        Raises:
            NoPlaceError: Too many calls wait, or no place became free in time.
        """
        if not self.has_room:
            raise NoPlaceError
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters[waiter] = None
        timer = loop.call_later(patience, _expire, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # It can have been given a place at the same time.
            if waiter.done() and not waiter.cancelled() and not waiter.exception():
                self.leave()
            raise
        finally:
            self._waiters.pop(waiter, None)
            timer.cancel()

    def leave(self) -> None:
        """Free a place."""
        self.running -= 1
        self._hand_on()

    def _hand_on(self) -> None:
        while self.running < self._most and (waiter := self._first()) is not None:
            self.running += 1
            waiter.set_result(None)

    def _first(self) -> asyncio.Future[None] | None:
        """Remove and return the first call that still waits; None if none does."""
        while self._waiters:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            if not waiter.done():  # a cancelled one is done before its task runs
                return waiter
        return None


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(NoPlaceError())

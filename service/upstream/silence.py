"""The timeout for silence: bounds each of many short waits with one timer.

A timer for each wait would cost more than waiting for a chunk. When this timer fires, it checks the
duration of the current wait, and is set again for the time at which that would be too long.
"""

import asyncio
from types import TracebackType
from typing import Self


class Silence:
    """Ends a wait in its `with` block that lasts too long. Close it after the last wait.

        with closing(Silence(30.0)) as silence:
            while …:
                with silence:
                    piece = await …

    The time between waits does not count. All waits are those of the task that creates it.

    Args:
        longest: Maximum seconds of a wait. Then, a `TimeoutError` ends it.

    Raises:
        RuntimeError: There is no running task.
    """

    __slots__ = (
        *("_cancelling", "_expired", "_longest", "_loop", "_since", "_task", "_timer", "_waits"),
    )

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("Silence needs a task to end.")
        self._task: asyncio.Task[object] = task
        self._waits = False
        self._since = 0.0
        self._cancelling = 0
        self._expired = False

    @property
    def longest(self) -> float:
        """The maximum seconds of a wait."""
        return self._longest

    @longest.setter
    def longest(self, seconds: float) -> None:
        if seconds != self._longest:
            self._longest = seconds
            self.close()  # the timer can be set for later

    def __enter__(self) -> Self:
        self._waits = True
        self._cancelling = self._task.cancelling()
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._since + self._longest, self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._waits = False
        if not self._expired:
            return
        self._expired = False
        # Like `asyncio.timeout`, keep a cancellation that has another cause.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._waits:
            return
        ends = self._since + self._longest
        if self._loop.time() < ends:
            self._timer = self._loop.call_at(ends, self._look)
        else:
            self._expired = True
            self._task.cancel()

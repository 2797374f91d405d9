"""What this process holds: tasks and open descriptors, before a test and after.

before = Footprint.take()
...
await before.returns()
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from dataclasses import dataclass

from tests.support.waiting import until


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """What the process holds at a moment: tasks, by what they run, and open descriptors."""

    tasks: Counter[str]
    descriptors: int

    @classmethod
    def take(cls) -> Footprint:
        """Look at the process now."""
        return cls(tasks=_tasks(), descriptors=_descriptors())

    async def returns(self) -> None:
        """Wait until the process holds no more than this.

        Raises:
            AssertionError: it does not within `PATIENCE`.
        """
        try:
            await until(lambda: _tasks() <= self.tasks)
            gc.collect()
            await until(lambda: _descriptors() <= self.descriptors)
        except AssertionError:
            left = (_tasks() - self.tasks, _descriptors() - self.descriptors)
            raise AssertionError("tasks and descriptors are left: {} {}".format(*left)) from None


def _tasks() -> Counter[str]:
    return Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))

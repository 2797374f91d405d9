"""The tasks and open descriptors of this process, before and after a test.

The files of a SQLite store do not count: its pool opens connections as threads need them.

before = Footprint.take()
...
await before.returns()
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.support.waiting import until

_STORE: Final = (".sqlite3", ".sqlite3-wal", ".sqlite3-shm")
"""How the names of the files of a store end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """The tasks, by the names of their coroutines, and the open descriptors of the process."""

    tasks: Counter[str]
    descriptors: int

    @classmethod
    def take(cls) -> Footprint:
        """Return the footprint of the process now."""
        return cls(tasks=_tasks(), descriptors=_descriptors())

    async def returns(self) -> None:
        """Wait until the process has no more tasks and descriptors than this.

        Raises:
            AssertionError: It has more after `PATIENCE`.
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
    folder = "/proc/self/fd"
    found = 0
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # that of the listing itself
            found += not os.readlink(f"{folder}/{name}").endswith(_STORE)
    return found

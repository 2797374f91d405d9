"""Bounded sets of calls that need no key, shared fairly by the connections that make them.

    add(task, connection) -> check(task, connection) -> the call runs
                                                     -> Overloaded: this call ends
                                                     -> another call ends: the oldest call of the
                                                        connection with the most calls

One caller who opens as many calls as it can therefore does not keep others out.
"""

import asyncio
from collections import Counter
from typing import Any, Literal, TypeAlias

from service import errors

Yields: TypeAlias = Literal["never", "to other connections", "always"]
"""When an earlier call makes room for a call beyond the maximum, which otherwise ends itself."""


class ProbeBound:
    """A bounded set of calls.

    Args:
        most: The maximum number of calls.
        most_of_one: The maximum number of calls of one connection; None for no such maximum.
        yields: When an earlier call makes room for a call beyond `most`.
    """

    def __init__(self, most: int, *, yields: Yields, most_of_one: int | None = None) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._yields = yields
        self._tasks: dict[asyncio.Task[Any], str] = {}  # in the order of their arrival
        self._counts: Counter[str] = Counter()
        self._displaced: set[asyncio.Task[Any]] = set()
        self._over = False

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: asyncio.Task[Any], connection: str) -> None:
        """Add a call of a connection."""
        self._tasks[task] = connection
        self._counts[connection] += 1

    def discard(self, task: asyncio.Task[Any]) -> None:
        """Remove a call."""
        self._displaced.discard(task)
        connection = self._tasks.pop(task, None)
        if connection is not None:
            self._counts[connection] -= 1
            if not self._counts[connection]:
                del self._counts[connection]

    def check(self, task: asyncio.Task[Any]) -> None:
        """Check that an added call can run, and end another one if it has to make room.

        Raises:
            Overloaded: There are too many calls.
            Draining: The server shuts down.
        """
        if self._over:
            raise errors.Draining
        connection = self._tasks[task]
        if self._most_of_one is not None and self._counts[connection] > self._most_of_one:
            raise errors.Overloaded
        if len(self._tasks) > self._most:
            # Of equals, the connection that came first.
            fullest = max(self._counts, key=self._counts.__getitem__)
            if self._yields == "never" or (
                self._yields == "to other connections" and fullest == connection
            ):
                raise errors.Overloaded
            self._displace(next(each for each, its in self._tasks.items() if its == fullest))

    def _displace(self, task: asyncio.Task[Any]) -> None:
        self.discard(task)
        self._displaced.add(task)
        task.cancel()

    def end(self) -> None:
        """Cancel every call."""
        self._over = True
        for task in self._tasks:
            task.cancel()

    def why(self, task: asyncio.Task[Any]) -> errors.Failure | None:
        """Return the failure of a call that this set cancelled, otherwise None."""
        if task in self._displaced:
            return errors.Overloaded()
        return errors.Draining() if self._over else None

"""Merges simultaneous queries into one.

    get(1), get(2), get(1) -> query([1, 2])           one at a time
    get(3), get(4) in the meantime -> query([3, 4])

A query starts after all `get` calls that it answers. The store or the disk runs one query at a time
for any number of callers, and no caller is rejected.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

MOST_AT_ONCE: Final = 500
"""Maximum keys of one query; further keys go to the next query."""

_K = TypeVar("_K")
_V = TypeVar("_V")


class Coalesced(Generic[_K, _V]):
    """A query that its callers share.

    Args:
        query: Returns the values of some keys, without those that do not exist.
    """

    def __init__(self, query: Callable[[Sequence[_K]], Awaitable[Mapping[_K, _V]]]) -> None:
        self._query = query
        self._turn = asyncio.Lock()
        self._keys: dict[_K, None] = {}
        """The keys of the next query, each once."""
        self._next: asyncio.Task[Mapping[_K, _V]] | None = None

    async def get(self, key: _K) -> _V | None:
        """Return the value of a key, or None if there is none. Raise what the query raises."""
        if self._next is None or len(self._keys) >= MOST_AT_ONCE:
            self._keys = {}
            self._next = asyncio.create_task(self._ask(self._keys))
            self._next.add_done_callback(_seen)
        self._keys[key] = None
        # If one caller is cancelled, the others still get the result.
        return (await asyncio.shield(self._next)).get(key)

    async def _ask(self, keys: dict[_K, None]) -> Mapping[_K, _V]:
        async with self._turn:
            if keys is self._keys:
                self._next = None  # later callers join the next query
            return await self._query(list(keys))


def _seen(done: asyncio.Task[object]) -> None:
    if not done.cancelled():
        done.exception()  # retrieved, in case all callers have left

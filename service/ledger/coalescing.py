"""One query about all that is asked for at the same time.

    get(1), get(2), get(1) ──► query([1, 2])           one at a time
          meanwhile get(3), get(4) ────────► query([3, 4])

An answer is of a time after it was asked for. However many ask, the store or the disk has one query
to do at a time, and nobody is turned away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

MOST_AT_ONCE: Final = 500
"""Keys of one query; who comes after them belongs to the next."""

_K = TypeVar("_K")
_V = TypeVar("_V")


class Coalesced(Generic[_K, _V]):
    """A query that its callers share.

    Args:
        query: Returns the values of some keys; of what does not exist there is none.
    """

    def __init__(self, query: Callable[[Sequence[_K]], Awaitable[Mapping[_K, _V]]]) -> None:
        self._query = query
        self._turn = asyncio.Lock()
        self._keys: dict[_K, None] = {}
        """Those of the next query, each once."""
        self._next: asyncio.Task[Mapping[_K, _V]] | None = None

    async def get(self, key: _K) -> _V | None:
        """Return the value of a key, or None where there is none; raises what the query raises."""
        if self._next is None or len(self._keys) >= MOST_AT_ONCE:
            self._keys = {}
            self._next = asyncio.create_task(self._ask(self._keys))
            self._next.add_done_callback(_seen)
        self._keys[key] = None
        # Who leaves does not take the answer from the others.
        return (await asyncio.shield(self._next)).get(key)

    async def _ask(self, keys: dict[_K, None]) -> Mapping[_K, _V]:
        async with self._turn:
            if keys is self._keys:
                self._next = None  # from now on, who comes is too late for this one
            return await self._query(list(keys))


def _seen(done: asyncio.Task[object]) -> None:
    if not done.cancelled():
        done.exception()  # also where all have left

"""The store as servicers use it: off the event loop, bounded, with failures of the contract.

read  ─► two threads of its own, so that no query of a caller delays an admission
share ─► the same, once for all who ask the same at the same time
write ─► the store's thread, that of `batches`

StoreError, or no answer ─► STORE_UNAVAILABLE      too many wait ─► OVERLOADED
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from service import errors
from service.ledger.batches import Batches
from service.ledger.store import StoreError

PATIENCE: Final = 5.0
"""Seconds that a call waits for the store."""

MOST_READING: Final = 256
"""Queries that run or wait; one more is refused."""

_THREADS: Final = 2

_T = TypeVar("_T")


class Access:
    """What servicers ask of a store.

    Every function raises the failures above, and those of the function that it runs.

    Args:
        batches: What applies operations to the store.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store-reader")
        self._room = threading.BoundedSemaphore(MOST_READING)
        self._shared: dict[Hashable, asyncio.Task[Any]] = {}

    def close(self) -> None:
        """Let the threads end, each with the query that it runs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, function: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        """Run a query."""
        if not self._room.acquire(blocking=False):
            raise errors.Overloaded
        query = self._threads.submit(partial(function, *arguments, **options))
        # The room is free when the query ended, not when its caller left.
        query.add_done_callback(self._ended)
        return await _bounded(asyncio.wrap_future(query))

    async def share(
        self, of: Hashable, function: Callable[..., _T], *arguments: Any, **options: Any
    ) -> _T:
        """Run a query, or wait for the one that runs already.

        Args:
            of: What is asked; who gives the same gets the same answer.
            function: The query.
            arguments: Of the query.
            options: Of the query.
        """
        query: asyncio.Task[_T] | None = self._shared.get(of)
        if query is None:
            query = asyncio.create_task(self.read(function, *arguments, **options))
            self._shared[of] = query
            query.add_done_callback(lambda done: self._forget(of, done))
        # Who leaves does not take the answer from the others.
        return await asyncio.shield(query)

    def _forget(self, of: Hashable, done: asyncio.Task[Any]) -> None:
        del self._shared[of]
        if not done.cancelled():
            done.exception()  # seen, even where all have left

    async def write(self, function: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        """Run a function that writes. Where no answer came, it may be done all the same."""
        return await _bounded(self._batches.call(partial(function, *arguments, **options)))

    def _ended(self, _: Future[Any]) -> None:
        self._room.release()


async def _bounded(answer: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(PATIENCE):
            return await answer
    except (StoreError, TimeoutError) as error:
        raise errors.StoreUnavailable from error

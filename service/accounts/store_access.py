"""Access to the store for servicers: in threads, with limits, with failures of the contract.

read  -> two separate threads, so that queries of callers do not delay admissions
share -> the same threads; simultaneous equal queries run once
write -> the store's thread, which `batches` uses

StoreError, or no result in time -> STORE_UNAVAILABLE      too many queries -> OVERLOADED
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
"""Maximum seconds that a call waits for the store."""

MOST_READING: Final = 256
"""Maximum queries that run or wait; further ones are rejected."""

_THREADS: Final = 2

_T = TypeVar("_T")


class Access:
    """Runs functions on a store.

    Every method raises the failures above, and those of the function that it runs.

    Args:
        batches: Applies operations to the store.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store-reader")
        self._room = threading.BoundedSemaphore(MOST_READING)
        self._shared: dict[Hashable, asyncio.Task[Any]] = {}

    def close(self) -> None:
        """Stop the threads after their current queries."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, function: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        """Run a query."""
        if not self._room.acquire(blocking=False):
            raise errors.Overloaded
        query = self._threads.submit(partial(function, *arguments, **options))
        # The query counts until it has ended, even if its caller has left.
        query.add_done_callback(self._ended)
        return await _bounded(asyncio.wrap_future(query))

    async def share(
        self, of: Hashable, function: Callable[..., _T], *arguments: Any, **options: Any
    ) -> _T:
        """Run a query, or wait for an equal query that already runs.

        Args:
            of: The key of the query. Callers with the same key share one result.
            function: The query.
            arguments: The arguments of the query.
            options: The keyword arguments of the query.
        """
        query: asyncio.Task[_T] | None = self._shared.get(of)
        if query is None:
            query = asyncio.create_task(self.read(function, *arguments, **options))
            self._shared[of] = query
            query.add_done_callback(lambda done: self._forget(of, done))
        # If one caller is cancelled, the others still get the result.
        return await asyncio.shield(query)

    def _forget(self, of: Hashable, done: asyncio.Task[Any]) -> None:
        del self._shared[of]
        if not done.cancelled():
            done.exception()  # retrieved, in case all callers have left

    async def write(self, function: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        """Run a function that writes. If it fails, the change may still have been made."""
        return await _bounded(self._batches.call(partial(function, *arguments, **options)))

    def _ended(self, _: Future[Any]) -> None:
        self._room.release()


async def _bounded(answer: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(PATIENCE):
            return await answer
    except (StoreError, TimeoutError) as error:
        raise errors.StoreUnavailable from error

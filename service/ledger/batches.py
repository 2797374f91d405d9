"""Group commit: operations that arrive together share a transaction.

    submit ─► pending ─► [up to 256] ─► the store applies them ─► the waiters are told
                 ▲                            │
                 └── what arrives meanwhile ◄─┘ is the next batch
    call ─► the store's thread, in which SQLite's transactions are, too
    read ─► threads of its own, so that no number of queries delays a transaction

One batch is applied at a time, and begins when the event loop has brought nothing new for some of
its turns: a transaction costs about as much as ten operations in it. So batches grow under load,
and an idle service begins after some microseconds. The event loop itself waits for a server: to
hand each batch to a thread and back would take a quarter more CPU. An operation that was submitted
is carried out even if nobody waits for it any more.

Nobody waits for long either: what a store that is away fails, it fails for all that wait by then,
and a store that does not even fail is interrupted.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import get_ident
from typing import Any, Final, TypeVar

from service.ledger.rows import Operation, Outcome
from service.ledger.store import Store, StoreError

LARGEST_BATCH: Final = 256
MOST_PENDING: Final = 20_000
PATIENCE: Final = 5.0
"""Seconds that a call waits for the store."""

ANSWER_WITHIN: Final = 10.0
"""Seconds that the store has for a batch or a function; more than it gives itself."""

_QUIET_TURNS: Final = 8
"""Turns of the event loop without a new operation after which a batch begins."""
GATHER_WITHIN: Final = 0.01
"""Seconds after which it begins in any case."""

_SECOND_LOOK: Final = 0.05
"""Seconds from the time when the store seems late until it is interrupted."""

_READERS: Final = 2
"""Threads: where one query is slow the next is not."""

_T = TypeVar("_T")
_Result = Outcome | Exception


class Batches:
    """Applies operations to a store from an event loop.

    Args:
        store: The store.
        answer_within: Seconds after which what the store does is interrupted.
        gather_within: Seconds after which a batch begins, however many operations still arrive.
    """

    def __init__(
        self,
        store: Store,
        *,
        answer_within: float = ANSWER_WITHIN,
        gather_within: float = GATHER_WITHIN,
    ) -> None:
        self._store = store
        self._gather_within = gather_within
        self._answer_within = answer_within
        self._pending: list[tuple[Operation, asyncio.Future[Outcome]]] = []
        self._batch: list[tuple[Operation, asyncio.Future[Outcome]]] = []
        """What is applied now."""
        self.failures = 0
        """How many batches the store has failed so far."""
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-lookup")
        self._began: dict[int, float] = {}
        """Since when each thread has been busy with what it does, the event loop's with a batch."""
        self._late: float | None = None
        """What began then took too long when that was last looked at."""
        self._watch: asyncio.TimerHandle | None = None

    def submit(self, operation: Operation) -> "asyncio.Future[Outcome]":
        """Have an operation applied.

        Returns:
            The outcome, once it is committed; or StoreError where the store is away.
        """
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if len(self._pending) >= MOST_PENDING:
            waiter.set_exception(StoreError("too many operations wait"))
            return waiter
        self._pending.append((operation, waiter))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
            self._running.add_done_callback(self._ended)
        return waiter

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a function that blocks in the store's thread."""
        return await self._run_in(self._thread, function, arguments)

    async def read(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a query that blocks in one of the readers' threads.

        Who is cancelled before it begins takes it back.
        """
        return await self._run_in(self._readers, function, arguments)

    async def close(self) -> None:
        """Wait for what was submitted, and for the threads, each with the query that it runs."""
        while self._running is not None:
            await asyncio.wait((self._running,))
        self._readers.shutdown(wait=False, cancel_futures=True)
        for threads in (self._thread, self._readers):
            await asyncio.to_thread(threads.shutdown)
        if self._watch is not None:
            self._watch.cancel()

    async def _run_in(
        self, threads: Executor, function: Callable[..., _T], arguments: Sequence[Any]
    ) -> _T:
        loop = asyncio.get_running_loop()
        self._see_to(loop)
        return await loop.run_in_executor(threads, self._timed, loop, function, arguments)

    async def _run(self) -> None:
        while self._pending:
            await self._quiet()
            self._batch = self._pending[:LARGEST_BATCH]
            del self._pending[:LARGEST_BATCH]
            results = await self._timely([operation for operation, _ in self._batch])
            if isinstance(results, StoreError):
                self.failures += 1
                # What waits behind it has waited for as long.
                self._batch += self._pending
                self._pending.clear()
                results = [results] * len(self._batch)
            for (_, waiter), result in zip(self._batch, results, strict=True):
                _tell(waiter, result)
            # Those who were told come first: what they submit belongs to the next batch.
            await asyncio.sleep(0)
        self._batch = []
        self._running = None

    async def _quiet(self) -> None:
        """Wait until the event loop has brought no new operation for some turns."""
        loop = asyncio.get_running_loop()
        quiet = loop.create_future()
        end = loop.time() + self._gather_within
        seen, turns = len(self._pending), 0

        def look() -> None:
            nonlocal seen, turns
            turns = turns + 1 if len(self._pending) == seen else 0
            seen = len(self._pending)
            if turns < _QUIET_TURNS and seen < LARGEST_BATCH and loop.time() < end:
                loop.call_soon(look)
            elif not quiet.done():
                quiet.set_result(None)

        loop.call_soon(look)
        await quiet

    def _ended(self, run: asyncio.Task[None]) -> None:
        if self._running is not run:
            return
        # It ended before its time, or never began. Nobody waits for ever.
        self._running = None
        ended = StoreError("what applies operations has ended")
        for _, waiter in (*self._batch, *self._pending):
            _tell(waiter, ended)
        self._batch = []
        self._pending.clear()

    async def _timely(self, operations: Sequence[Operation]) -> Sequence[_Result] | StoreError:
        """Apply a batch, within the time that the store has for all of it."""
        loop = asyncio.get_running_loop()
        self._see_to(loop)
        self._began[get_ident()] = loop.time()
        try:
            return await self._apply(operations)
        finally:
            del self._began[get_ident()]

    async def _apply(self, operations: Sequence[Operation]) -> Sequence[_Result] | StoreError:
        """Apply a batch; where it fails for its content, each operation by itself."""
        try:
            return await self._store.applying(operations, self.call)
        except StoreError as error:
            return error
        except Exception as error:  # noqa: BLE001  (one operation must not fail the others)
            if len(operations) == 1:
                return [error]
        results: list[_Result] = []
        for operation in operations:
            result = await self._apply((operation,))
            if isinstance(result, StoreError):
                return [*results, *[result] * (len(operations) - len(results))]
            results += result
        return results

    def _timed(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., _T], arguments: Sequence[Any]
    ) -> _T:
        self._began[get_ident()] = loop.time()
        try:
            return function(*arguments)
        finally:
            del self._began[get_ident()]

    def _see_to(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watch is None:
            self._watch = loop.call_later(self._answer_within, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Interrupt the store where it takes too long; look again while it is busy."""
        self._watch = None
        began = min(self._began.values(), default=None)
        if began is None:
            return
        left = began + self._answer_within - loop.time()
        if left <= 0:
            # Where it was the event loop that was late, the answer is there, but not heard yet.
            left = _SECOND_LOOK
            if began == self._late:
                self._store.interrupt()
                left = self._answer_within
            self._late = began
        self._watch = loop.call_later(left, self._look, loop)


def _tell(waiter: "asyncio.Future[Outcome]", result: _Result) -> None:
    if waiter.done():
        return
    if isinstance(result, Exception):
        waiter.set_exception(result)
        # Seen, even where nobody waits any more: asyncio would log it as forgotten.
        waiter.exception()
    else:
        waiter.set_result(result)

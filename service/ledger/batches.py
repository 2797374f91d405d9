"""Group commit: operations that arrive together share a transaction.

    submit -> pending -> [up to 256] -> the store applies them -> results to the callers
              operations that arrive in the meantime are the next batch
    call -> the store's thread, which also runs SQLite's transactions
    read -> separate threads, so that queries do not delay transactions

One batch is applied at a time. It begins when no operation has arrived for some iterations of the
event loop, because a transaction costs about as much as ten operations in it. Batches therefore
grow under load. After some batches of one operation, a lone one begins at once. The event loop
itself waits for PostgreSQL: handing each batch to a thread would take a quarter more CPU. A
submitted operation is applied even if its caller does not wait any more.

No caller waits long: if the store fails a batch, the operations that wait behind it fail too, and
a store that does not respond is interrupted.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import get_ident
from typing import Any, Final, TypeVar

from service.ledger.rows import Operation, Outcome
from service.ledger.store import Store, StoreError

LONE: Final = 8
"""Batches of one operation in a row after which the next one does not wait for company. With
several callers, so many in a row are rare."""

LARGEST_BATCH: Final = 256
MOST_PENDING: Final = 20_000
PATIENCE: Final = 5.0
"""Maximum seconds that a call waits for the store."""

ANSWER_WITHIN: Final = 10.0
"""Maximum seconds of the store for a batch or a function; longer than its own timeouts."""

_QUIET_TURNS: Final = 8
"""Iterations of the event loop without a new operation after which a batch begins."""
GATHER_WITHIN: Final = 0.01
"""Maximum seconds until a batch begins."""

_SECOND_LOOK: Final = 0.05
"""Seconds between the first sign that the store is late and its interruption."""

_READERS: Final = 2
"""The number of threads: several, so that a slow query does not block the others."""

_T = TypeVar("_T")
_Result = Outcome | Exception


class Batches:
    """Applies operations to a store from an event loop.

    Args:
        store: The store.
        answer_within: Seconds after which the store is interrupted.
        gather_within: Maximum seconds until a batch begins.
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
        """The batch that is being applied."""
        self._lone = LONE
        """How many batches in a row had one operation, up to the last."""
        self.failures = 0
        """The number of batches that the store has failed."""
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-lookup")
        self._began: dict[int, float] = {}
        """The time at which each busy thread started its work; the event loop's, its batch."""
        self._late: float | None = None
        """The start times of work that was late at the last check."""
        self._watch: asyncio.TimerHandle | None = None

    def submit(self, operation: Operation) -> "asyncio.Future[Outcome]":
        """Submit an operation.

        Returns:
            A future of the outcome, set after the commit; or StoreError if the store is away.
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

    async def apply(self, operation: Operation, patience: float) -> Outcome:
        """Submit an operation and return its outcome.

        Args:
            operation: The operation. It is applied even if the caller stops waiting.
            patience: Maximum seconds to wait.

        Raises:
            TimeoutError: The store takes longer.
            StoreError: The store is away.
        """
        return await answered(self.submit(operation), patience)

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a blocking function in the store's thread."""
        return await self._run_in(self._thread, function, arguments)

    async def read(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a blocking query in one of the readers' threads.

        If the caller is cancelled before the query begins, it does not run.
        """
        return await self._run_in(self._readers, function, arguments)

    async def close(self) -> None:
        """Wait for the submitted operations, and for the threads to finish their queries."""
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
            if self._lone < LONE or len(self._pending) > 1:
                await self._quiet()
            self._batch = self._pending[:LARGEST_BATCH]
            del self._pending[:LARGEST_BATCH]
            self._lone = self._lone + 1 if len(self._batch) == 1 else 0
            results = await self._timely([operation for operation, _ in self._batch])
            if isinstance(results, StoreError):
                self.failures += 1
                # The operations behind the batch fail too: they have waited as long.
                self._batch += self._pending
                self._pending.clear()
                results = [results] * len(self._batch)
            for (_, waiter), result in zip(self._batch, results, strict=True):
                _tell(waiter, result)
            # Let the callers run first, so that their new operations join the next batch.
            await asyncio.sleep(0)
        self._batch = []
        self._running = None

    async def _quiet(self) -> None:
        """Wait until no operation has arrived for some iterations of the event loop."""
        loop = asyncio.get_running_loop()
        quiet = loop.create_future()
        end = loop.time() + self._gather_within
        loop.call_soon(self._look_for_more, quiet, end, len(self._pending), 0)
        await quiet

    def _look_for_more(
        self, quiet: "asyncio.Future[None]", end: float, seen: int, turns: int
    ) -> None:
        """End the wait of `_quiet`, or check again in the next iteration of the event loop.

        Args:
            quiet: What `_quiet` waits for.
            end: When it ends at the latest, by the event loop's clock.
            seen: The number of pending operations at the last check.
            turns: The number of checks in a row without a new operation.
        """
        loop = asyncio.get_running_loop()
        pending = len(self._pending)
        turns = turns + 1 if pending == seen else 0
        if turns < _QUIET_TURNS and pending < LARGEST_BATCH and loop.time() < end:
            loop.call_soon(self._look_for_more, quiet, end, pending, turns)
        elif not quiet.done():
            quiet.set_result(None)

    def _ended(self, run: asyncio.Task[None]) -> None:
        if self._running is not run:
            return
        # It ended early or never began. Fail the waiting operations.
        self._running = None
        ended = StoreError("what applies operations has ended")
        for _, waiter in (*self._batch, *self._pending):
            _tell(waiter, ended)
        self._batch = []
        self._pending.clear()

    async def _timely(self, operations: Sequence[Operation]) -> Sequence[_Result] | StoreError:
        """Apply a batch within the time limit of the store."""
        loop = asyncio.get_running_loop()
        self._see_to(loop)
        self._began[get_ident()] = loop.time()
        try:
            return await self._apply(operations)
        finally:
            del self._began[get_ident()]

    async def _apply(self, operations: Sequence[Operation]) -> Sequence[_Result] | StoreError:
        """Apply a batch. If an operation makes it fail, apply each operation alone."""
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
        """Interrupt the store if it takes too long. Check again while it is busy."""
        self._watch = None
        began = min(self._began.values(), default=None)
        if began is None:
            return
        left = began + self._answer_within - loop.time()
        if left <= 0:
            # If the event loop was late instead, the result has arrived but was not processed.
            left = _SECOND_LOOK
            if began == self._late:
                self._store.interrupt()
                left = self._answer_within
            self._late = began
        self._watch = loop.call_later(left, self._look, loop)


async def answered(waiter: "asyncio.Future[Outcome]", patience: float) -> Outcome:
    """Return the outcome of a submitted operation.

    Like `asyncio.timeout` around `asyncio.shield`, in a third of the time. Neither the end of the
    patience nor a cancellation of the caller cancels the waiter.

    Args:
        waiter: The future that `submit` returned.
        patience: Maximum seconds to wait.

    Raises:
        TimeoutError: The store takes longer.
        StoreError: The store is away.
    """
    if not waiter.done():
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def wake(_: object = None) -> None:
            if not over.done():
                over.set_result(None)

        timer = loop.call_later(patience, wake)
        waiter.add_done_callback(wake)
        try:
            await over
        finally:
            timer.cancel()
    if not waiter.done():
        raise TimeoutError
    return waiter.result()


def _tell(waiter: "asyncio.Future[Outcome]", result: _Result) -> None:
    if waiter.done():
        return
    if isinstance(result, Exception):
        waiter.set_exception(result)
        # Retrieve the exception, in case no caller waits any more; asyncio would log it.
        waiter.exception()
    else:
        waiter.set_result(result)

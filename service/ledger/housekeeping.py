"""What is done between calls: is the store there, whose lease ran out, what waits in the journal.

every second   have the store do nothing, in the way of every call ─► readiness
               after a failure, see that it can be written, too
               replay the journal, once it is there
               end the holds whose lease ran out, delete those that ended long ago
               have the journal take what only memory has

Of what is replayed, the store knows every hold and can apply every end. What it does not know, as
where it is another store or an older state of it, or cannot apply, is set aside for operators, and
so are lines that are none.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from process import log
from service.ledger.batches import LARGEST_BATCH, Batches
from service.ledger.journal import Ending, Journal
from service.ledger.rows import Ended, Operation, Outcome, Release, Settle
from service.ledger.store import Store, StoreError

INTERVAL: Final = 1.0
"""Seconds."""

PATIENCE: Final = 3.0
"""Seconds after which a store that does not answer is away."""

_NOTHING: Final = Release(hold_id="", account_id=0, key_id=0)
"""Of no hold; it takes the locks of one that is."""

_log = logging.getLogger(__name__)


class Housekeeping:
    """Looks after a store.

    Args:
        store: The store.
        batches: What applies operations to it.
        journal: What waits for it.
        changed: Told whether the store is there, when that changes.
        lost: Told of the nano-credits that a replayed settlement could not take.
        rejected: Told of how many settlements were set aside.
    """

    def __init__(
        self,
        store: Store,
        batches: Batches,
        journal: Journal,
        changed: Callable[[bool], Awaitable[None]],
        lost: Callable[[int], None],
        *,
        rejected: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._batches = batches
        self._journal = journal
        self._changed = changed
        self._lost = lost
        self._rejected = rejected
        self._there: bool | None = True
        """None while that is being told: where this fails, the next round tells it again."""
        self._why = ""
        """What was wrong when the store was last away."""
        self._failures = 0
        """How many batches had failed when the store was last seen to take what is written."""

    async def run(self) -> None:
        """Look after the store until cancelled."""
        while True:
            try:
                await self._note(await self.round())
            except Exception:  # noqa: BLE001  (it is logged, and must not be the last round)
                _log.exception("housekeeping failed")
            await asyncio.sleep(INTERVAL)

    async def round(self) -> bool:
        """Look after the store once, and return whether it is there."""
        is_there = await self._look_after()
        unwritten = self._journal.unwritten.endings()
        if unwritten:
            with suppress(OSError):  # it was told when they came into memory
                await asyncio.to_thread(self._journal.append, *unwritten)
                self._journal.unwritten.forget(unwritten)
        return is_there

    async def _look_after(self) -> bool:
        try:
            await self._submit((_NOTHING,))
            await self._try_writing()
            for part in (self.replay, self._expire, self._prune):
                await self._survive(part)
        except (StoreError, TimeoutError) as error:
            self._why = str(error) or "it does not answer"
            return False
        except Exception:  # noqa: BLE001  (it is logged)
            # The store answered. What is wrong now must not end what is done every second.
            _log.exception("housekeeping failed")
        return True

    async def _survive(self, part: Callable[[], Awaitable[None]]) -> None:
        """Do a part of the work, which others must not wait for in vain: the store may be there."""
        try:
            await part()
        except (StoreError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001  (it is logged)
            # Such as a journal that cannot be read: leases run out all the same.
            _log.exception("housekeeping failed")

    async def _expire(self) -> None:
        async with asyncio.timeout(PATIENCE):
            expired = await self._batches.call(self._store.expired)
        await self._submit(expired)

    async def _prune(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._batches.call(self._store.prune)

    async def _try_writing(self) -> None:
        """After a failure, see that the store can be written.

        Locks are had on a full disk, too. They are all that is asked for while nothing fails: no
        disk is kept busy by a service that rests.
        """
        failures = self._batches.failures
        if failures != self._failures:
            async with asyncio.timeout(PATIENCE):
                await self._batches.call(self._store.try_writing)
            self._failures = failures

    async def replay(self) -> None:
        """Apply what waits in memory and in the journal.

        Raises:
            StoreError: the store is away; nothing is forgotten.
            TimeoutError: it does not answer; likewise.
            OSError: the journal cannot be read or written.
        """
        unwritten = self._journal.unwritten.endings()
        await self._apply(unwritten)
        self._journal.unwritten.forget(unwritten)
        # Off the event loop even for this: whoever appends waits for the disk.
        if await asyncio.to_thread(self._journal.is_empty):
            return
        kept = await asyncio.to_thread(self._journal.kept)
        await self._apply(kept.endings, kept.unreadable)
        # What was appended meanwhile is replayed in the next round, with the rest.
        if await asyncio.to_thread(self._journal.forget, kept):
            _log.info("settlements replayed from the journal")

    async def _apply(self, endings: Sequence[Ending], unreadable: Sequence[bytes] = ()) -> None:
        """Apply ends of holds, and set aside what cannot be applied."""
        refused: list[Ending] = []
        for ending, outcome in zip(endings, await self._submit(endings), strict=True):
            if outcome is None or (isinstance(ending, Settle) and outcome == Ended(state=None)):
                refused.append(ending)
            elif isinstance(outcome, Ended) and outcome.lost > 0:
                self._lost(outcome.lost)
        if refused or unreadable:
            count = await asyncio.to_thread(self._journal.set_aside, refused, unreadable)
            if count:
                self._rejected(count)
                _log.error("settlements set aside", extra=log.fields(count=count))

    async def _submit(self, operations: Sequence[Operation]) -> list[Outcome | None]:
        """Apply operations, as many at a time as share a transaction.

        Returns:
            The outcome of each, None where it will never be applied.

        Raises:
            StoreError: the store is away.
            TimeoutError: it does not answer.
        """
        outcomes: list[Outcome | None] = []
        for begin in range(0, len(operations), LARGEST_BATCH):
            waiters = map(self._batches.submit, operations[begin : begin + LARGEST_BATCH])
            async with asyncio.timeout(PATIENCE):
                results = await asyncio.gather(*waiters, return_exceptions=True)
            for result in results:
                if isinstance(result, StoreError):
                    raise result
                if isinstance(result, BaseException):
                    _log.error("an operation failed", exc_info=result)
                    outcomes.append(None)
                else:
                    outcomes.append(result)
        return outcomes

    async def _note(self, there: bool) -> None:
        if there != self._there:
            if there:
                _log.info("store is there")
            else:
                _log.error("store is away", extra=log.fields(why=self._why))
            self._there = None
            await self._changed(there)
            self._there = there

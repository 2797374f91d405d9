"""The work between calls: checks the store, replays the journal, expires and prunes holds.

every second   run an empty operation through the store -> readiness
               after a failure, also check that the store accepts writes
               check that the store has forgotten nothing
               when the store is back, replay the journal
               end expired holds, delete holds that ended long ago
               write settlements in memory to the journal

Replayed settlements that the store cannot apply are moved to a `.rejected` file for operators: the
hold is unknown and of another store or too old, or the line is damaged.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from process import log
from service.ledger.batches import LARGEST_BATCH, Batches
from service.ledger.history import History
from service.ledger.journal import Ending, Journal
from service.ledger.rows import Ended, Operation, Outcome, Release, Settle
from service.ledger.store import Store, StoreError

INTERVAL: Final = 1.0
"""Seconds."""

PATIENCE: Final = 3.0
"""Maximum seconds without a response before the store counts as away."""

REMINDED_EVERY: Final = 60.0
"""Seconds between log lines while the store is away."""

_NOTHING: Final = Release(hold_id="", account_id=0, key_id=0)
"""A release of no existing hold, which takes the same locks as one of an existing hold."""

_log = logging.getLogger(__name__)


class Housekeeping:
    """Does the work between calls.

    Args:
        store: The store.
        batches: Applies operations to the store.
        journal: The journal of settlements.
        changed: Called when the store comes back (True) or goes away (False).
        lost: Called with the nano-credits above the hold of a replayed settlement.
        rejected: Called with the number of rejected settlements.
        history: Notices that the store has forgotten something; None for no check.
        clock: Returns seconds that pass steadily.
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
        history: History | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._batches = batches
        self._journal = journal
        self._changed = changed
        self._lost = lost
        self._rejected = rejected
        self._history = history
        self._clock = clock
        self._there: bool | None = True
        """Whether the store is there. None while `changed` runs, to call it again if it fails."""
        self._why = ""
        """The reason why the store was last away."""
        self._since = 0.0
        """The time at which the store was first found to be away."""
        self._logged = 0.0
        """The time of the last log line about it."""
        self._failures = 0
        """The number of failed batches when the store last accepted writes."""

    async def run(self) -> None:
        """Do one round each second until cancelled."""
        while True:
            try:
                await self._note(await self.round())
            except Exception:  # noqa: BLE001  (it is logged, and must not be the last round)
                _log.exception("housekeeping failed")
            await asyncio.sleep(INTERVAL)

    async def round(self) -> bool:
        """Do one round, and return whether the store is there."""
        is_there = await self._look_after()
        unwritten = self._journal.unwritten.endings()
        if unwritten:
            with suppress(OSError):  # it was logged when the settlements were put into memory
                await asyncio.to_thread(self._journal.append, *unwritten)
                self._journal.unwritten.forget(unwritten)
        return is_there

    async def _look_after(self) -> bool:
        try:
            await self._submit((_NOTHING,))
            await self._try_writing()
            for part in (self._remember, self.replay, self._expire, self._prune):
                await self._survive(part)
        except (StoreError, TimeoutError) as error:
            self._why = str(error) or "it does not answer"
            return False
        except Exception:  # noqa: BLE001  (it is logged)
            # The store responded. Another failure must not end the rounds.
            _log.exception("housekeeping failed")
        return True

    async def _survive(self, part: Callable[[], Awaitable[None]]) -> None:
        """Do a part of the work. A failure must not block the other parts."""
        try:
            await part()
        except (StoreError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001  (it is logged)
            # For example an unreadable journal: leases must still expire.
            _log.exception("housekeeping failed")

    async def _remember(self) -> None:
        if self._history is not None:
            async with asyncio.timeout(PATIENCE):
                await self._batches.call(self._history.check)

    async def _expire(self) -> None:
        async with asyncio.timeout(PATIENCE):
            expired = await self._batches.call(self._store.expired)
        await self._submit(expired)

    async def _prune(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._batches.call(self._store.prune)

    async def _try_writing(self) -> None:
        """After a failure, check that the store accepts writes.

        The empty operation only takes locks, which a full disk allows. It suffices while nothing
        fails, and keeps the disk of an idle service idle.
        """
        failures = self._batches.failures
        if failures != self._failures:
            async with asyncio.timeout(PATIENCE):
                await self._batches.call(self._store.try_writing)
            self._failures = failures

    async def replay(self) -> None:
        """Apply the settlements in memory and in the journal.

        Raises:
            StoreError: The store is away. Nothing is lost.
            TimeoutError: The store does not respond. Nothing is lost.
            OSError: The journal cannot be read or written.
        """
        unwritten = self._journal.unwritten.endings()
        await self._apply(unwritten)
        self._journal.unwritten.forget(unwritten)
        # In a thread even for this, because an append holds the lock while it waits for the disk.
        if await asyncio.to_thread(self._journal.is_empty):
            return
        kept = await asyncio.to_thread(self._journal.kept)
        await self._apply(kept.endings, kept.unreadable)
        # If settlements were appended in the meantime, the next round replays all again.
        if await asyncio.to_thread(self._journal.forget, kept):
            _log.info("settlements replayed from the journal")

    async def _apply(self, endings: Sequence[Ending], unreadable: Sequence[bytes] = ()) -> None:
        """Apply settlements, and reject those that cannot be applied."""
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
                _log.error("settlements rejected", extra=log.fields(count=count))

    async def _submit(self, operations: Sequence[Operation]) -> list[Outcome | None]:
        """Apply operations, a batch at a time.

        Returns:
            The outcome of each, or None if it can never be applied.

        Raises:
            StoreError: The store is away.
            TimeoutError: The store does not respond.
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
                _log.info("store is back")
            else:
                _log.error("store is away", extra=log.fields(why=self._why))
                self._since = self._logged = self._clock()
            self._there = None
            await self._changed(there)
            self._there = there
        elif not there and self._clock() - self._logged >= REMINDED_EVERY:
            # The reason can be another one by now, for example after a failover.
            self._logged = self._clock()
            seconds = round(self._logged - self._since)
            _log.error("store is still away", extra=log.fields(why=self._why, seconds=seconds))

"""What is done between calls: is the store there, whose lease ran out, what waits in the journal.

every second   have the store do nothing, in the way of every call ─► readiness
               replay the journal, once it is there
               end the holds whose lease ran out
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from service.accounts.batches import LARGEST_BATCH, Batches
from service.accounts.journal import Journal
from service.accounts.rows import Ended, Operation, Outcome, Release
from service.accounts.store import Store, StoreError

INTERVAL: Final = 1.0
"""Seconds."""

PATIENCE: Final = 3.0
"""Seconds after which a store that does not answer is away."""

_NOTHING: Final = Release(hold_id="", account_id=0, key_id=0)
"""Of no hold. Reading is not enough: a store that cannot be written is away, too."""

_log = logging.getLogger(__name__)


class Housekeeping:
    """Looks after a store.

    Args:
        store: The store.
        batches: What applies operations to it.
        journal: What waits for it.
        changed: Told whether the store is there, when that changes.
        lost: Told of the nano-credits that a replayed settlement could not take.
    """

    def __init__(
        self,
        store: Store,
        batches: Batches,
        journal: Journal,
        changed: Callable[[bool], Awaitable[None]],
        lost: Callable[[int], None],
    ) -> None:
        self._store = store
        self._batches = batches
        self._journal = journal
        self._changed = changed
        self._lost = lost
        self._there = True

    async def run(self) -> None:
        """Look after the store until cancelled."""
        while True:
            await self._note(await self.round())
            await asyncio.sleep(INTERVAL)

    async def round(self) -> bool:
        """Look after the store once, and return whether it is there."""
        try:
            await self._submit((_NOTHING,))
            await self.replay()
            async with asyncio.timeout(PATIENCE):
                expired = await self._batches.call(self._store.expired)
            await self._submit(expired)
        except (StoreError, TimeoutError):
            return False
        except Exception:  # noqa: BLE001  (it is logged)
            # The store answered. What is wrong now must not end what is done every second.
            _log.exception("housekeeping failed")
        return True

    async def replay(self) -> None:
        """Apply what waits in the journal.

        Raises:
            StoreError: the store is away; nothing is forgotten.
            TimeoutError: it does not answer; likewise.
            OSError: the journal cannot be read or written.
        """
        if self._journal.is_empty():
            return
        kept = await asyncio.to_thread(self._journal.kept)
        for outcome in await self._submit(kept.endings):
            if isinstance(outcome, Ended) and outcome.lost > 0:
                self._lost(outcome.lost)
        # What was appended meanwhile is replayed in the next round, with the rest.
        if await asyncio.to_thread(self._journal.forget, kept):
            _log.info("settlements replayed from the journal")

    async def _submit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Apply operations, as many at a time as share a transaction.

        Raises:
            StoreError: the store is away.
            TimeoutError: it does not answer.
        """
        outcomes: list[Outcome] = []
        for begin in range(0, len(operations), LARGEST_BATCH):
            waiters = map(self._batches.submit, operations[begin : begin + LARGEST_BATCH])
            async with asyncio.timeout(PATIENCE):
                results = await asyncio.gather(*waiters, return_exceptions=True)
            for result in results:
                if isinstance(result, StoreError):
                    raise result
                if isinstance(result, BaseException):
                    # It will never be applied; the others are.
                    _log.error("an operation failed", exc_info=result)
                else:
                    outcomes.append(result)
        return outcomes

    async def _note(self, there: bool) -> None:
        if there != self._there:
            self._there = there
            _log.log(
                logging.INFO if there else logging.ERROR,
                "store is %s",
                "there" if there else "away",
            )
            await self._changed(there)

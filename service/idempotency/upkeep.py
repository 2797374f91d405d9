"""The work between calls for idempotency keys: renews claims, deletes expired answers."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from service.ledger.batches import PATIENCE, Batches
from service.ledger.store import StoreError
from service.ledger.stored_answers import FORGOTTEN_AT_ONCE, Answers

INTERVAL: Final = 5.0
"""Seconds; a quarter of the lease of a claim."""

_SECOND: Final = 10**9
_log = logging.getLogger(__name__)


class Upkeep:
    """Renews the claims of this process, and deletes expired answers of all processes.

    Args:
        answers: The answers.
        batches: Applies operations to the store.
        runner: The name of this process in its claims.
        running: Returns the number of runs.
        lease: Seconds until a claim that is not renewed lapses.
    """

    def __init__(
        self,
        answers: Answers,
        batches: Batches,
        *,
        runner: str,
        running: Callable[[], int],
        lease: float,
    ) -> None:
        self._answers = answers
        self._batches = batches
        self._runner = runner
        self._running = running
        self._lease = int(lease * _SECOND)

    async def run(self) -> None:
        """Do one round every few seconds until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.round()
            except Exception:  # noqa: BLE001  (it is logged, and must not be the last round)
                _log.exception("upkeep of answers failed")

    async def round(self) -> None:
        """Do one round. Without the store, do nothing: the housekeeping reports that it is away."""
        with suppress(StoreError, TimeoutError):
            if self._running():
                await self._batches.call(self._answers.renew, self._runner, self._lease)
            expired = await self._batches.read(self._answers.expired)
            while expired:
                waiters = [self._batches.submit(forget) for forget in expired]
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*waiters)
                if len(expired) < FORGOTTEN_AT_ONCE:
                    return
                expired = await self._batches.read(self._answers.expired)

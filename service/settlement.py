"""What a call used, brought into the books.

    ending                              charge
    complete                            the usage that the upstream reported, else what was counted
    failed, nothing delivered           nothing
    failed or left after some tokens    the same as complete, marked as partial
    complete, but neither the store     as of a failed call, which it is, with STORE_UNAVAILABLE: of
    nor the journal takes the charge    a whole answer nothing was delivered, of a stream all of it

    ending_of ─► start(end(…)) ─► the store, or ─► the journal, or ─► memory

A settlement is in the store, or on the disk of the journal, before its call ends with success. If
neither takes it, it stays in memory until one of them does. The store may have taken a charge
although its answer was lost: it then stands, also of an answer that was not delivered.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Final

from msgspec import structs

from process import log
from service.ledger.batches import Batches
from service.ledger.coalescing import Coalesced
from service.ledger.journal import Ending, Journal
from service.ledger.rows import Ended, Outcome, Place, Release, Settle
from service.ledger.store import StoreError
from service.metering.price import price
from service.metering.progress import Progress
from service.models import Model
from service.telemetry import Telemetry

SETTLED_WITHIN: Final = 20.0
"""Seconds that a drain waits for settlements: as long as a place and its release can take."""

_MOST_TOKENS: Final = 10**12
"""More than any call uses: what the ledger records if an upstream reports more, so that sums of its
entries stay within the store's integers."""

_log = logging.getLogger(__name__)


class Settlement:
    """Ends holds, each once, however its call ends.

    Args:
        batches: Applies operations to the store.
        journal: Keeps settlements while the store is away.
        telemetry: Counts losses.
        patience: Seconds that a settlement waits for the store before it goes to the journal.
    """

    def __init__(
        self, batches: Batches, journal: Journal, telemetry: Telemetry, *, patience: float
    ) -> None:
        self._batches = batches
        self._journal = journal
        self._telemetry = telemetry
        self._patience = patience
        self._endings: dict[asyncio.Task[bool], Ending] = {}
        # Why what was to be kept is not. When the store goes away under load, hundreds of calls end
        # in the journal at once.
        self._appends = Coalesced[Ending, Exception](self._append)

    async def settled(self) -> None:
        """Wait until every settlement that began is in the store or the journal.

        What takes longer than `SETTLED_WITHIN` is in memory then, like what neither of them took.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_WITHIN):
                while self._endings:
                    await asyncio.wait(self._endings)
        for task, ending in self._endings.items():
            _log.error("a settlement takes too long", extra=log.fields(hold=ending.hold_id))
            task.cancel()
            self._journal.unwritten.add(ending)

    def start(self, task: Coroutine[None, None, bool], ending: Ending) -> asyncio.Task[bool]:
        """Start what ends a hold, so that it goes on if its call is cancelled.

        Args:
            task: Ends the hold; returns whether the store or the journal has that.
            ending: How the hold ends if the process does not wait for it.
        """
        started = asyncio.create_task(task)
        self._endings[started] = ending
        started.add_done_callback(self._endings.pop)
        return started

    async def end(self, ending: Ending, otherwise: Ending) -> bool:
        """Bring the end of a hold into the store, or into the journal.

        Args:
            ending: How it ends.
            otherwise: How it ends where neither of them takes that; it is kept in memory.

        Returns:
            Whether one of them has it.
        """
        outcome: Outcome | None = None
        try:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(self._patience):
                    outcome = await asyncio.shield(self._batches.submit(ending))
        except Exception:  # noqa: BLE001  (it is logged, and the ending kept)
            _log.exception("a settlement failed", extra=log.fields(hold=ending.hold_id))
        # A store that does not know the hold is another one: the charge will be set aside.
        if outcome is None or (isinstance(ending, Settle) and outcome == Ended(state=None)):
            return await self._keep(ending, otherwise)
        if isinstance(outcome, Ended) and outcome.lost > 0:
            self._telemetry.lost(outcome.lost)
            _log.error(
                "usage above the hold",
                extra=log.fields(hold=ending.hold_id, nano_credits=outcome.lost),
            )
        return True

    async def _append(self, endings: Sequence[Ending]) -> Mapping[Ending, Exception]:
        return await asyncio.to_thread(self._journal.append_each, endings)

    async def _keep(self, ending: Ending, otherwise: Ending) -> bool:
        try:
            error = await self._appends.get(ending)
            if error is not None:
                raise error
        except Exception:  # noqa: BLE001  (it is logged, and the ending kept)
            _log.exception("a settlement is in memory only", extra=log.fields(hold=ending.hold_id))
            self._journal.unwritten.add(otherwise)
            return False
        return True


def ending_of(place: Place, progress: Progress, model: Model, *, failed: bool) -> Ending:
    """Return how a hold ends, by the table of this module.

    Args:
        place: The hold.
        progress: What the answer used.
        model: The model whose prices count.
        failed: Whether the call fails.
    """
    if failed and not progress.delivered:
        return release(place)
    prompt, completion, estimated = progress.used
    return Settle(
        hold_id=place.hold_id,
        account_id=place.account_id,
        key_id=place.key_id,
        charge=price(model, prompt, completion),
        prompt_tokens=min(prompt, _MOST_TOKENS),
        completion_tokens=min(completion, _MOST_TOKENS),
        partial=failed,
        estimated=estimated,
    )


def unkept(ending: Ending, *, streamed: bool) -> Ending:
    """Return how the hold ends of a call that fails for its ending cannot be kept."""
    if isinstance(ending, Settle) and streamed:
        return structs.replace(ending, partial=True)
    return release(ending)


def release(of: Place | Ending) -> Release:
    """Return the ending of a hold that charges nothing."""
    return Release(hold_id=of.hold_id, account_id=of.account_id, key_id=of.key_id)

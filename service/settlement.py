"""Settlements: charge a call's usage and end its hold.

    end of the call                     charge
    complete                            the reported usage, otherwise the counted usage
    failed, nothing delivered           nothing
    failed or cancelled after output    the usage so far, marked as partial
    complete, but neither the store     that of a failed call: the call fails with
    nor the journal saves the charge    STORE_UNAVAILABLE. A unary response was not delivered, a
                                        stream was

    ending_of -> start(end(…)) -> the store, otherwise the journal, otherwise memory

A call succeeds only after its settlement is in the store or on the disk of the journal. If neither
saves it, it stays in memory until one of them does. If the store's response is lost, the store can
still have committed the charge, which then stands even if the response was not delivered.
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
from service.metering.price import cost
from service.metering.progress import Progress
from service.metering.usage_parts import NO_PARTS
from service.models import NO_SPECIAL_PRICES, Model
from service.telemetry import Telemetry

SETTLED_WITHIN: Final = 20.0
"""Maximum seconds that a drain waits for settlements: the time of placing and releasing a hold."""

_MOST_TOKENS: Final = 10**12
"""Maximum tokens of a ledger entry. No call uses more; if an upstream reports more, the ledger
records this, so that sums stay within the store's integers."""

_log = logging.getLogger(__name__)


class Settlement:
    """Ends each hold exactly once.

    Args:
        batches: Applies operations to the store.
        journal: Keeps settlements while the store is away.
        telemetry: Counts losses.
        patience: Maximum seconds to wait for the store before writing to the journal.
    """

    def __init__(
        self, batches: Batches, journal: Journal, telemetry: Telemetry, *, patience: float
    ) -> None:
        self._batches = batches
        self._journal = journal
        self._telemetry = telemetry
        self._patience = patience
        self._settling = 0
        self._endings: dict[asyncio.Task[int | None], Ending] = {}
        # The exception of each ending that the journal could not save. If the store goes away under
        # load, hundreds of calls end in the journal at once and share one write.
        self._appends = Coalesced[Ending, Exception](self._append)

    @property
    def waiting(self) -> int:
        """The number of settlements that are neither in the store nor in the journal."""
        return self._settling + len(self._journal.unwritten)

    async def settled(self) -> None:
        """Wait until every settlement whose call was cancelled is in the store or the journal.

        After `SETTLED_WITHIN`, keep the remaining ones in memory.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_WITHIN):
                while self._endings:
                    await asyncio.wait(self._endings)
        for task, ending in self._endings.items():
            _log.error("a settlement takes too long", extra=log.fields(hold=ending.hold_id))
            task.cancel()
            self._journal.unwritten.add(ending)

    def start(
        self, task: Coroutine[None, None, int | None], ending: Ending
    ) -> asyncio.Task[int | None]:
        """Start a task that ends a hold, because its call was cancelled.

        Args:
            task: Ends the hold, as `end` does.
            ending: The ending to keep if the drain does not wait for the task.
        """
        started = asyncio.create_task(task)
        self._endings[started] = ending
        started.add_done_callback(self._endings.pop)
        return started

    async def end(self, ending: Ending, otherwise: Ending) -> int | None:
        """Save the ending of a hold in the store or, if it is away, in the journal.

        Args:
            ending: The ending.
            otherwise: The ending to keep in memory if neither of them saves `ending`.

        Returns:
            The charge in nano-credits that one of them saved; None if neither did.
        """
        self._settling += 1
        try:
            outcome = await self._apply(ending)
            # A store that cannot charge the hold is another one: the journal rejects the charge.
            if outcome is None or (isinstance(ending, Settle) and outcome == Ended(state=None)):
                return _charged(ending) if await self._keep(ending, otherwise) else None
        finally:
            self._settling -= 1
        if not isinstance(outcome, Ended):
            raise TypeError("not the outcome of an ending")
        if outcome.lost > 0:
            self._telemetry.lost(outcome.lost)
            _log.error(
                "usage above the hold",
                extra=log.fields(hold=ending.hold_id, nano_credits=outcome.lost),
            )
        return outcome.charged

    async def _apply(self, ending: Ending) -> Outcome | None:
        try:
            with suppress(StoreError, TimeoutError):
                return await self._batches.apply(ending, self._patience)
        except Exception:  # noqa: BLE001  (it is logged, and the ending kept)
            _log.exception("a settlement failed", extra=log.fields(hold=ending.hold_id))
        return None

    async def _append(self, endings: Sequence[Ending]) -> Mapping[Ending, Exception]:
        return await asyncio.to_thread(self._journal.append_each, endings)

    async def _keep(self, ending: Ending, otherwise: Ending) -> bool:
        try:
            error = await self._appends.get(_without_answer(ending))
            if error is not None:
                raise error
        except Exception:  # noqa: BLE001  (it is logged, and the ending kept)
            _log.exception("a settlement is in memory only", extra=log.fields(hold=ending.hold_id))
            self._journal.unwritten.add(otherwise)
            return False
        return True


def ending_of(place: Place, progress: Progress, model: Model, *, failed: bool) -> Ending:
    """Return the ending of a hold, by the table of this module.

    Args:
        place: The hold.
        progress: The usage of the response.
        model: The model with the prices.
        failed: Whether the call failed.
    """
    if failed and not progress.delivered:
        return release(place)
    prompt, completion, estimated = progress.used
    parts = NO_PARTS if model.special is NO_SPECIAL_PRICES else progress.parts
    amount, of_prompt = cost(model, prompt, completion, parts)
    return Settle(
        hold_id=place.hold_id,
        account_id=place.account_id,
        key_id=place.key_id,
        charge=amount,
        prompt_charge=of_prompt,
        prompt_tokens=min(prompt, _MOST_TOKENS),
        completion_tokens=min(completion, _MOST_TOKENS),
        partial=failed,
        estimated=estimated,
        prices_from=model.prices_from,
        place=place,
        parents=place.parents,
    )


def _charged(ending: Ending) -> int:
    """Return the charge of an ending that the journal has: at most the hold."""
    if not isinstance(ending, Settle):
        return 0
    return ending.charge if ending.place is None else min(ending.charge, ending.place.amount)


def unkept(ending: Ending, *, streamed: bool) -> Ending:
    """Return the ending for a call that fails because its own ending could not be saved."""
    if isinstance(ending, Settle) and streamed:
        return structs.replace(ending, partial=True, answer=None)
    return release(ending)


def release(of: Place | Ending) -> Release:
    """Return the ending of a hold that charges nothing."""
    return Release(
        hold_id=of.hold_id,
        account_id=of.account_id,
        key_id=of.key_id,
        parents=of.parents,
        claim=_claim_of(of),
    )


def _claim_of(of: Place | Ending) -> str:
    """Return the id of the claim of a hold, "" if it has none."""
    if isinstance(of, Release):
        return of.claim
    place = of.place if isinstance(of, Settle) else of
    return "" if place is None or place.claim is None else place.claim.id


def _without_answer(ending: Ending) -> Ending:
    """Return an ending as the journal keeps it. It keeps charges, not answers."""
    if isinstance(ending, Settle) and ending.answer is not None:
        return structs.replace(ending, answer=None)
    return ending

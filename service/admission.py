"""Admits a call: holds its maximum cost, or rejects it.

    admit(caller, call, request) -> hold -> Progress -> settlement, also after a failure
                                 -> MODEL_NOT_ALLOWED, INSUFFICIENT_CREDITS, CREDITS_HELD,
                                    RATE_LIMITED, STORE_UNAVAILABLE

The hold is placed before anything is sent upstream.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from service import errors, rate_limit_headers
from service.accounts.keys import Caller
from service.call import Call
from service.ledger.batches import ANSWER_WITHIN, Batches, answered
from service.ledger.ids import hold_id
from service.ledger.rows import Outcome, Place, Placed, Refusal, Refused, Settle
from service.ledger.store import StoreError
from service.metering.bound import Bound, bound_of, estimate, largest_output
from service.metering.price import price
from service.metering.progress import Progress
from service.request import AcceptedRequest
from service.settlement import Settlement, ending_of, release, unkept

LEASE_BEYOND_DEADLINE: Final = 60.0
"""Seconds from the deadline of a call until its hold expires."""

_SECOND: Final = 10**9
_MILLISECOND: Final = 10**6


class Admission:
    """Places holds, and settles them when their calls end.

    Args:
        batches: Applies operations to the store.
        settlement: Ends holds.
        owner: The name of this process, stored in its holds.
        patience: Maximum seconds that a call waits for the store.
        wall_clock: Nanoseconds since the Unix epoch, for the ids of holds.
    """

    def __init__(
        self,
        batches: Batches,
        settlement: Settlement,
        *,
        owner: str,
        patience: float,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._batches = batches
        self._settlement = settlement
        self._owner = owner
        self._patience = patience
        self._wall_clock = wall_clock
        self.open_holds = 0
        """The number of holds that were placed and are not settled."""

    @asynccontextmanager
    async def admit(
        self,
        caller: Caller,
        call: Call,
        request: AcceptedRequest,
        *,
        wants_usage: bool,
    ) -> AsyncIterator[Progress]:
        """Hold the maximum cost of a call. Settle its usage when the context ends in any way.

        Yields:
            The progress of the response, which counts its usage.

        Raises:
            Failure: The call is rejected and nothing is held; or, at the end of a complete call,
                neither the store nor the journal could save the settlement.
        """
        model = request.model
        bound = bound_of(request.priced, model, request.output_limit)
        place = Place(
            hold_id=hold_id(self._wall_clock()),
            account_id=caller.account_id,
            key_id=caller.key_id,
            amount=price(model, bound.prompt_tokens, bound.completion_tokens),
            tokens=bound.tokens,
            model=model.name,
            owner=self._owner,
            lease=_lease(call),
            key_created_at=caller.key_created_at,
        )
        progress = Progress(
            wants_usage=wants_usage,
            prompt_estimate=estimate(request.priced, model),
            most=bound.completion_tokens,
            choices=request.choices,
        )
        outcome = await self._place(place)
        call.rate_limit = rate_limit_headers.headers(outcome.requests, outcome.tokens)
        if isinstance(outcome, Refused):
            raise _failure(outcome, bound, request)
        failed = True
        self.open_holds += 1
        try:
            yield progress
            failed = False
        finally:
            ending = ending_of(place, progress, model, failed=failed)
            if isinstance(ending, Settle):
                call.record.prompt_tokens = ending.prompt_tokens
                call.record.completion_tokens = ending.completion_tokens
                call.record.estimated = ending.estimated
                call.record.charge = ending.charge
            # The caller has received the chunks of a stream, but no part of a unary response.
            otherwise = unkept(ending, streamed=progress.is_streamed)
            try:
                kept = await self._settlement.end(ending, otherwise)
            except asyncio.CancelledError:
                # A second cancellation ends this wait, not the settlement: a hold is settled once.
                again = self._settlement.end(ending, otherwise)
                self._settlement.start(again, otherwise).add_done_callback(self._settled)
                raise
            self.open_holds -= 1
        if not kept:
            raise errors.StoreUnavailable(
                "What the request used cannot be recorded.", dispatched=True
            )

    def _settled(self, _: object) -> None:
        self.open_holds -= 1

    async def _place(self, place: Place) -> Placed | Refused:
        waiter = self._batches.submit(place)
        try:
            outcome = await answered(waiter, self._patience)
        except BaseException as error:
            # The store can still place the hold, which nobody would use.
            self._settlement.start(self._undo(place, waiter), release(place))
            if isinstance(error, (StoreError, TimeoutError)):
                raise errors.StoreUnavailable from error
            raise
        if not isinstance(outcome, (Placed, Refused)):
            raise TypeError("not the outcome of a Place")
        return outcome

    async def _undo(self, place: Place, waiter: "asyncio.Future[Outcome]") -> bool:
        """Release a hold that was placed too late. Return whether the store or journal has that."""
        await asyncio.wait((waiter,), timeout=ANSWER_WITHIN)
        # After an error, the transaction may still have been committed.
        answered = waiter.done() and waiter.exception() is None
        if answered and isinstance(waiter.result(), Refused):
            return True
        return await self._settlement.end(release(place), release(place))


def _lease(call: Call) -> int:
    remaining = max(call.deadline - asyncio.get_running_loop().time(), 0.0)
    return int((remaining + LEASE_BEYOND_DEADLINE) * _SECOND)


def _failure(refused: Refused, bound: Bound, request: AcceptedRequest) -> errors.Failure:
    """Return the failure for a rejected hold."""
    match refused.refusal:
        case Refusal.KEY:
            return errors.InvalidApiKey()
        case Refusal.MODEL:
            return errors.ModelNotAllowed(param="model")
        case Refusal.CREDIT | Refusal.HELD:
            kind = (
                errors.InsufficientCredits
                if refused.refusal is Refusal.CREDIT
                else errors.CreditsHeld
            )
            fits = largest_output(request.model, bound, request.choices, refused.available)
            hint = f" The largest max_tokens that it covers is {fits}." if fits else ""
            return kind(kind.default_message + hint)
        case limit:
            # The wait is sent in whole milliseconds, rounded down; one more makes it sufficient.
            wait = (refused.wait + _MILLISECOND) / _SECOND if refused.wait else None
            message = f"Rate limit reached: {limit.value}."
            if limit is Refusal.TOKENS and wait is None and refused.tokens is not None:
                besides = bound.prompt_tokens + bound.predicted_tokens
                fits = (refused.tokens.limit - besides) // request.choices
                message += f" The largest max_tokens that fits is {fits}." if fits > 0 else ""
            return errors.RateLimited.of(limit.value, message, wait)

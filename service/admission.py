"""Admits a call: holds its maximum cost, or rejects it.

    admit(caller, call, request) -> hold -> Progress -> settlement, also after a failure
                                 -> SUSPENDED, MODEL_NOT_ALLOWED, INSUFFICIENT_CREDITS,
                                    CREDITS_HELD, BUDGET_EXCEEDED, RATE_LIMITED,
                                    STORE_UNAVAILABLE

The hold is placed before anything is sent upstream.
"""

import asyncio
import math
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Final, Protocol

from chatcompletion.credit_amounts import to_text
from chatcompletion.default_messages import quoted
from service import budget_failures, errors, rate_limit_headers, receipts
from service.accounts.keys import Caller
from service.call import Call
from service.credit_worth import CreditWorth
from service.ledger.batches import ANSWER_WITHIN, Batches, answered
from service.ledger.ids import hold_id
from service.ledger.journal import Ending
from service.ledger.rows import (
    Claim,
    Claimed,
    Outcome,
    Place,
    Placed,
    Refusal,
    Refused,
    Settle,
)
from service.ledger.store import StoreError
from service.metering.bound import Bound, bound_of, largest_output
from service.metering.price import most
from service.metering.progress import Progress
from service.models import Model
from service.request import AcceptedRequest
from service.settlement import Settlement, ending_of, release, unkept


class ClaimedError(Exception):
    """Another call has the idempotency key. Nothing is held."""

    def __init__(self, claimed: Claimed) -> None:
        super().__init__("another call has the idempotency key")
        self.claimed = claimed


class HoldRecording(Protocol):
    """What a call with an idempotency key adds to its hold and its settlement."""

    @property
    def claim(self) -> Claim:
        """The idempotency key."""

    def placed(self, hold_id: str) -> None:
        """Note that the hold was placed."""

    def ending(self, ending: Ending, progress: Progress) -> Ending:
        """Return the ending of the hold with the answer to store."""


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
        gives_receipts: Whether each call gets the receipt of its charge.
        worth: The worth of a credit, if receipts show it.
        wall_clock: Nanoseconds since the Unix epoch, for the ids of holds.
    """

    def __init__(
        self,
        batches: Batches,
        settlement: Settlement,
        *,
        owner: str,
        patience: float,
        gives_receipts: bool = True,
        worth: CreditWorth | None = None,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._batches = batches
        self._settlement = settlement
        self._owner = owner
        self._patience = patience
        self._gives_receipts = gives_receipts
        self.worth = worth
        """The worth of a credit, if receipts show it."""
        self._wall_clock = wall_clock
        self.open_holds = 0
        """The number of holds that were placed and are not settled."""

    def admit(
        self,
        caller: Caller,
        call: Call,
        request: AcceptedRequest,
        *,
        wants_usage: bool,
        recording: HoldRecording | None = None,
    ) -> "_Admitted":
        """Hold the maximum cost of a call. Settle its usage when the context ends in any way.

        Args:
            caller: The caller.
            call: The call.
            request: Its request.
            wants_usage: Whether the caller requested the usage chunk.
            recording: The idempotency key and the answer to store; None for a call without a key.

        Returns:
            A context, in which there is the progress of the response, which counts its usage.

        Raises:
            ClaimedError: Another call has the idempotency key. Nothing is held.
            Failure: The call is rejected and nothing is held; or, at the end of a complete call,
                neither the store nor the journal could save the settlement.
        """
        holding = self._hold(caller, call, request, wants_usage=wants_usage, recording=recording)
        return _Admitted(self, call, holding, recording)

    async def _hold(
        self,
        caller: Caller,
        call: Call,
        request: AcceptedRequest,
        *,
        wants_usage: bool,
        recording: HoldRecording | None,
    ) -> tuple[Place, Model, Progress]:
        now = self._wall_clock()
        request = priced_at(request, now)
        model = request.model
        bound = bound_of(request.priced, model, request.output_limit, survey=request.survey)
        place = Place(
            hold_id=hold_id(now),
            account_id=caller.account_id,
            key_id=caller.key_id,
            amount=most(model, bound.prompt_tokens, bound.completion_tokens),
            tokens=bound.tokens,
            model=model.name,
            owner=self._owner,
            lease=_lease(call),
            key_created_at=caller.key_created_at,
            key_rotated_at=caller.key_rotated_at,
            parents=caller.parent_ids,
            claim=None if recording is None else recording.claim,
        )
        progress = Progress(
            wants_usage=wants_usage,
            wants_totals=wants_usage and _wants_totals(request),
            prompt_estimate=bound.prompt_estimate,
            most=bound.completion_tokens if request.sends_limit else sys.maxsize,
            choices=request.choices,
        )
        outcome = await self._place(place)
        call.rate_limit = rate_limit_headers.headers(outcome.requests, outcome.tokens)
        if isinstance(outcome, Refused):
            raise failure_of(outcome, place, bound, request, caller)
        if isinstance(outcome, Claimed):
            raise ClaimedError(outcome)
        if recording is not None:
            recording.placed(place.hold_id)
        call.gives_receipt = self._gives_receipts
        self.open_holds += 1
        return place, model, progress

    async def settle(self, call: Call, ending: Ending, *, streamed: bool, failed: bool) -> None:
        """End the hold of a call.

        Args:
            call: The call, which learns what it used and its receipt.
            ending: What ends the hold.
            streamed: Whether the response is a stream.
            failed: Whether the call has failed.

        Raises:
            StoreUnavailable: The call has not failed, but neither the store nor the journal could
                save the settlement.
        """
        if isinstance(ending, Settle):
            call.record.prompt_tokens = ending.prompt_tokens
            call.record.completion_tokens = ending.completion_tokens
            call.record.estimated = ending.estimated
            call.record.charge = ending.charge
        # The caller has received the chunks of a stream, but no part of a unary response.
        otherwise = unkept(ending, streamed=streamed)
        try:
            charged = await self._settlement.end(ending, otherwise)
        except asyncio.CancelledError:
            # A second cancellation ends this wait, not the settlement: a hold is settled once.
            again = self._settlement.end(ending, otherwise)
            self._settlement.start(again, otherwise).add_done_callback(self._settled)
            raise
        self.open_holds -= 1
        if call.gives_receipt and charged is not None:
            call.charge = receipts.charge_of(ending, charged, self.worth)
        if charged is None and not failed:
            raise errors.StoreUnavailable(
                "What the request used cannot be recorded.", dispatched=True
            )

    def _settled(self, _: object) -> None:
        self.open_holds -= 1

    async def _place(self, place: Place) -> Placed | Refused | Claimed:
        waiter = self._batches.submit(place)
        try:
            outcome = await answered(waiter, self._patience)
        except BaseException as error:
            # The store can still place the hold, which nobody would use.
            self._settlement.start(self._undo(place, waiter), release(place))
            if isinstance(error, (StoreError, TimeoutError)):
                raise errors.StoreUnavailable from error
            raise
        if not isinstance(outcome, (Placed, Refused, Claimed)):
            raise TypeError("not the outcome of a Place")
        return outcome

    async def _undo(self, place: Place, waiter: "asyncio.Future[Outcome]") -> int | None:
        """Release a hold that was placed too late. Return what `Settlement.end` returns."""
        await asyncio.wait((waiter,), timeout=ANSWER_WITHIN)
        # After an error, the transaction may still have been committed.
        answered = waiter.done() and waiter.exception() is None
        if answered and isinstance(waiter.result(), (Refused, Claimed)):
            return 0
        return await self._settlement.end(release(place), release(place))


class _Admitted:
    """An admitted call as a context, from its hold to its settlement.

    A generator in its place would take three times the memory in each open stream.

    Args:
        admission: The admission.
        call: The call.
        holding: Places the hold.
        recording: The idempotency key and the answer to store; None for a call without a key.
    """

    __slots__ = ("_admission", "_call", "_holding", "_model", "_place", "_progress", "_recording")

    def __init__(
        self,
        admission: Admission,
        call: Call,
        holding: Coroutine[object, object, tuple[Place, Model, Progress]],
        recording: HoldRecording | None,
    ) -> None:
        self._admission = admission
        self._call = call
        self._holding = holding
        self._recording = recording

    async def __aenter__(self) -> Progress:
        self._place, self._model, self._progress = await self._holding
        del self._holding
        return self._progress

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        progress, failed = self._progress, kind is not None
        ending = ending_of(self._place, progress, self._model, failed=failed)
        if self._recording is not None:
            ending = self._recording.ending(ending, progress)
        await self._admission.settle(
            self._call, ending, streamed=progress.is_streamed, failed=failed
        )


def _wants_totals(request: AcceptedRequest) -> bool:
    """Return whether the caller requested the usage so far in each chunk, as vLLM offers it."""
    return request.params.stream_options.extra_json.get("continuous_usage_stats") == "true"


def _lease(call: Call) -> int:
    remaining = max(call.deadline - asyncio.get_running_loop().time(), 0.0)
    return int((remaining + LEASE_BEYOND_DEADLINE) * _SECOND)


def priced_at(request: AcceptedRequest, now: int) -> AcceptedRequest:
    """Return a request with the prices of a time, in nanoseconds since the Unix epoch."""
    model = request.model.at(now)
    return request if model is request.model else replace(request, model=model)


def failure_of(
    refused: Refused, place: Place, bound: Bound, request: AcceptedRequest, caller: Caller
) -> errors.Failure:
    """Return the failure for a rejected hold."""
    match refused.refusal:
        case Refusal.KEY:
            return errors.InvalidApiKey(errors.KEY_ENDED)
        case Refusal.SUSPENDED:
            return errors.Suspended()
        case Refusal.MODEL:
            return errors.ModelNotAllowed(
                f"This API key is not allowed to use the model {quoted(request.model.name)}. "
                "Use another model or another key.",
                param="model",
            )
        case Refusal.CREDIT | Refusal.HELD | Refusal.BUDGET | Refusal.BUDGET_HELD:
            return _no_credit(refused, place, bound, request, caller)
        case Refusal.TOKENS:
            return _too_many_tokens(refused, bound, request)
        case limit:
            size = refused.concurrency
            if limit is Refusal.REQUESTS and refused.requests:
                size = refused.requests.limit
            at = f": limit {size}" if size else ""
            wait = _wait(refused)
            message = f"Rate limit reached for {limit.value}{at}. {_again(wait)}"
            return errors.RateLimited.of(limit.value, message, wait)


def _no_credit(
    refused: Refused, place: Place, bound: Bound, request: AcceptedRequest, caller: Caller
) -> errors.Failure:
    cost, available = to_text(place.amount), to_text(refused.available)
    fits = largest_output(request.model, bound, request.choices, refused.available)
    less = f", or set {_limit_of(request)} to at most {fits}" if fits else ""
    if refused.budget is not None:
        is_spent = refused.refusal is Refusal.BUDGET
        failure = budget_failures.exceeded if is_spent else budget_failures.held
        return failure(caller, refused.budget, place.amount, less)
    if refused.refusal is Refusal.CREDIT:
        return errors.InsufficientCredits(
            f"Insufficient credits: this request can cost up to {cost}, but {available} is "
            f"available. Add credit{less}."
        )
    return errors.CreditsHeld(
        f"Insufficient credits for now: this request can cost up to {cost}, but only {available} "
        f"is not reserved for requests in progress. Try again shortly{less}."
    )


def _too_many_tokens(refused: Refused, bound: Bound, request: AcceptedRequest) -> errors.Failure:
    wait = _wait(refused)
    subject = Refusal.TOKENS.value
    size = refused.tokens.limit if refused.tokens is not None else 0
    counts = (
        f"limit {size}, requested {bound.tokens} "
        f"({bound.prompt_tokens} prompt + {bound.completion_tokens} output)"
    )
    if wait is not None:
        message = f"Rate limit reached for {subject}: {counts}. {_again(wait)}"
        return errors.RateLimited.of(subject, message, wait)
    fits = (size - bound.prompt_tokens - bound.predicted_tokens) // request.choices
    less = f", or set {_limit_of(request)} to at most {fits}" if fits > 0 else ""
    message = (
        f"Request too large for this key's limit of {subject}: {counts}. Reduce the prompt{less}."
    )
    return errors.RateLimited.of(subject, message, None)


def _limit_of(request: AcceptedRequest) -> str:
    """Return the member with which the caller limits the output."""
    asked = request.params.HasField("max_completion_tokens")
    return "max_completion_tokens" if asked else "max_tokens"


def _wait(refused: Refused) -> float | None:
    # The wait is sent in whole milliseconds, rounded down; one more makes it sufficient.
    return (refused.wait + _MILLISECOND) / _SECOND if refused.wait else None


def _again(wait: float | None) -> str:
    return "Try again later." if wait is None else f"Try again in {math.ceil(wait * 10) / 10:g}s."

"""Quotes: what a completion would hold, and whether it would be admitted.

    caller, request -> Place -> ledger.quoting, in a thread -> QuoteChatCompletionResponse
                             -> INVALID_API_KEY, SUSPENDED, STORE_UNAVAILABLE, OVERLOADED

The rules are those of the admission: the same bound, the same prices, the same decision and the
same message. Nothing is placed, written or taken from a limit.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from chatcompletion.v1 import chat_completion_service_pb2 as pb
from chatcompletion.v1.error_pb2 import ErrorReason
from service.accounts import messages
from service.accounts.keys import Caller
from service.accounts.store_access import Access
from service.admission import failure_of, priced_at
from service.credit_worth import CreditWorth
from service.ledger.ids import hold_id
from service.ledger.quoting import Quoted, quote
from service.ledger.rows import Place, Refusal, Refused
from service.ledger.store import Store
from service.metering.bound import Bound, bound_of
from service.metering.price import most
from service.request import AcceptedRequest

_ENDED: Final = frozenset({Refusal.KEY, Refusal.SUSPENDED})
"""The rejections of which a quote fails, as every call does."""

_LIMITS: Final[Mapping[Refusal, tuple["pb.LimitScope.ValueType", str]]] = {
    Refusal.MODEL: (pb.LIMIT_SCOPE_API_KEY, "models"),
    Refusal.CREDIT: (pb.LIMIT_SCOPE_ACCOUNT, "balance"),
    Refusal.HELD: (pb.LIMIT_SCOPE_ACCOUNT, "balance"),
    Refusal.REQUESTS: (pb.LIMIT_SCOPE_API_KEY, "requests_per_minute"),
    Refusal.TOKENS: (pb.LIMIT_SCOPE_API_KEY, "tokens_per_minute"),
    Refusal.CONCURRENCY: (pb.LIMIT_SCOPE_API_KEY, "concurrency"),
}
"""Whose limit rejects a hold, and which one, if it is not a budget."""

_TIMED: Final = frozenset({Refusal.REQUESTS, Refusal.TOKENS})
"""The limits that refill at a known time."""


class Quotes:
    """Quotes completions.

    Args:
        access: Access to the store, with a maximum of queries.
        store: The store.
        worth: The worth of a credit, if responses show it.
        wall_clock: Nanoseconds since the Unix epoch, which select the prices.
    """

    def __init__(
        self,
        access: Access,
        store: Store,
        *,
        worth: CreditWorth | None = None,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._access = access
        self._store = store
        self._worth = worth
        self._wall_clock = wall_clock

    async def quote(
        self, caller: Caller, request: AcceptedRequest
    ) -> pb.QuoteChatCompletionResponse:
        """Return the quote of a request.

        Raises:
            Failure: The key has ended, it or its account is suspended, or the store is away.
        """
        now = self._wall_clock()
        request = priced_at(request, now)
        model = request.model
        bound = bound_of(request.priced, model, request.output_limit, survey=request.survey)

        def sized(output_limit: int) -> Place:
            completion = request.choices * output_limit + bound.predicted_tokens
            return Place(
                hold_id=hold_id(now),
                account_id=caller.account_id,
                key_id=caller.key_id,
                amount=most(model, bound.prompt_tokens, completion),
                tokens=bound.prompt_tokens + completion,
                model=model.name,
                owner="",
                lease=0,
                key_created_at=caller.key_created_at,
                key_rotated_at=caller.key_rotated_at,
                parents=caller.parent_ids,
            )

        place = sized(request.output_limit)
        largest = model.maximum_output_tokens
        quoted = await self._access.read(quote, self._store, place, sized, largest)
        outcome = quoted.outcome
        rejection = None
        if isinstance(outcome, Refused):
            failure = failure_of(outcome, place, bound, request, caller)
            if outcome.refusal in _ENDED:
                raise failure
            rejection = _rejection(outcome, failure.reason, failure.message, quoted)
        return _response(request, bound, place, quoted, rejection, self._worth)


def _response(  # noqa: PLR0917  (each is a part of the message)
    request: AcceptedRequest,
    bound: Bound,
    place: Place,
    quoted: Quoted,
    rejection: pb.QuotedRejection | None,
    worth: CreditWorth | None,
) -> pb.QuoteChatCompletionResponse:
    return pb.QuoteChatCompletionResponse(
        model=request.model.name,
        hold_nano_credits=place.amount,
        prompt_tokens=bound.prompt_tokens,
        completion_tokens=bound.completion_tokens,
        available_nano_credits=quoted.available,
        largest_max_tokens=quoted.largest or None,
        rejection=rejection,
        hold_worth=None if worth is None else worth.of(place.amount),
    )


def _rejection(refused: Refused, reason: str, message: str, quoted: Quoted) -> pb.QuotedRejection:
    budget, until = refused.budget, None
    if budget is not None:
        of_key = budget.account_id is None
        scope = pb.LIMIT_SCOPE_API_KEY if of_key else pb.LIMIT_SCOPE_ACCOUNT
        limit = f"budget_{budget.window.value}"
        until = budget.end if refused.refusal is Refusal.BUDGET else None
    else:
        scope, limit = _LIMITS[refused.refusal]
        if refused.refusal in _TIMED and refused.wait > 0:
            until = quoted.now + refused.wait
    return pb.QuotedRejection(
        reason=ErrorReason.Value(f"ERROR_REASON_{reason}"),
        message=message,
        scope=scope,
        limit=limit,
        retry_time=messages.timestamp(until),
    )

"""Who may call, what a call may use, and what it used.

    authenticate(call)          ──► Caller         INVALID_API_KEY, alike for every cause
    admit(caller, call, …)      ──► hold ─► Progress ─► settle, however the call ends
                                     │
                                     └─ MODEL_NOT_ALLOWED, INSUFFICIENT_CREDITS, CREDITS_HELD,
                                        RATE_LIMITED, STORE_UNAVAILABLE

    ending                              charge
    complete                            the usage that the upstream reported, else what was counted
    failed, nothing delivered           nothing
    failed or left after some tokens    the same as complete, marked as partial
    complete, but neither the store     as of a failed call, which it is, with STORE_UNAVAILABLE: of
    nor the journal takes the charge    a whole answer nothing was delivered, of a stream all of it

The hold is the price of the most that the call can use, placed before anything is sent upstream;
the settlement is in the store, or on the disk of the journal, before a call ends with success.
Where neither takes it, it stays in memory until one of them does. The store may have taken a charge
although its answer was lost: it then stands, also of an answer that was not delivered.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from msgspec import structs

from chatcompletion.process import log
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service import errors
from service.accounts import keys
from service.accounts.directory import Directory, Levels
from service.accounts.keys import Caller, Remembered
from service.call import Call, Headers
from service.ledger.batches import ANSWER_WITHIN, Batches
from service.ledger.coalescing import Coalesced
from service.ledger.ids import hold_id
from service.ledger.journal import Ending, Journal
from service.ledger.rates import Level
from service.ledger.rows import Ended, Outcome, Place, Placed, Refusal, Refused, Release, Settle
from service.ledger.store import StoreError
from service.metering.bound import Bound, bound_of, estimate, largest_output, output_limit
from service.metering.price import price
from service.metering.progress import Progress
from service.models import Model
from service.telemetry import Telemetry

PATIENCE: Final = 5.0
"""Seconds that a call waits for the store."""

SETTLED_WITHIN: Final = 20.0
"""Seconds that a drain waits for settlements: as long as a place and its release can take."""

LOOK_WITHIN: Final = 1.0
"""Seconds that a call waits for the state of its limits, where no hold told it."""

LEASE_BEYOND_DEADLINE: Final = 60.0
"""Seconds that a hold outlives the deadline of its call."""

_SCHEME: Final = "bearer "
_LONGEST_KEY: Final = 256
_MOST_LOOKUPS: Final = 1000
_SECOND: Final = 10**9
_MILLISECOND: Final = 10**6
_MOST_TOKENS: Final = 10**12
"""More than any call uses: what the ledger records where an upstream reports more, so that sums of
its entries stay within the store's integers."""

_log = logging.getLogger(__name__)


class Admission:
    """Knows the keys, and keeps the books.

    Args:
        batches: What applies operations to the store.
        directory: Where keys are found.
        journal: Where settlements wait while the store is away.
        telemetry: Told of losses.
        owner: The name of this process, in its holds.
        clock: A monotonic clock, in seconds.
        wall_clock: Nanoseconds since the Unix epoch, for the ids of holds.
    """

    def __init__(
        self,
        batches: Batches,
        directory: Directory,
        journal: Journal,
        telemetry: Telemetry,
        *,
        owner: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._wall_clock = wall_clock
        self._batches = batches
        self._directory = directory
        self._journal = journal
        self._telemetry = telemetry
        self._owner = owner
        # Two, so that no flood of wrong keys drives out the right ones.
        self._callers = Remembered(clock)
        self._strangers = Remembered(clock)
        self._levels = Coalesced[int, Levels](partial(batches.read, directory.levels))
        self._lookups: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._endings: dict[asyncio.Task[bool], Ending] = {}
        # Why what was to be kept is not. When the store goes away under load, hundreds of calls end
        # in the journal at once.
        self._appends = Coalesced[Ending, Exception](self._append)

    async def authenticate(self, call: Call) -> Caller:
        """Return who calls, and have the call know it, which asks only once.

        Args:
            call: Its metadata `authorization` is the scheme Bearer (RFC 6750) and a key.

        Raises:
            InvalidApiKey: there is no key, or not a valid one.
            StoreUnavailable: the keys cannot be read.
        """
        if isinstance(call.caller, Caller):
            return call.caller
        call.caller = caller = await self._who(call.authorization)
        call.record.key_name = caller.key_name
        if caller.is_limited:
            call.limits = partial(self._limits, caller)
        return caller

    async def _limits(self, caller: Caller) -> Headers:
        """Return how much of a caller's limits is left, or nothing where that is not to be had."""
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                levels = await self._levels.get(caller.key_id)
        except (StoreError, TimeoutError):
            return ()
        return () if levels is None else _headers(*levels)

    async def _who(self, authorization: str | None) -> Caller:
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise errors.InvalidApiKey
        key = authorization[len(_SCHEME) :].strip()
        if not 0 < len(key) <= _LONGEST_KEY:
            raise errors.InvalidApiKey
        digest = keys.digest(key)
        known, caller = self._callers.get(digest)
        if not known:
            known, caller = self._strangers.get(digest)
        if not known:
            caller = await self._look_up(digest)
        if caller is None:
            raise errors.InvalidApiKey
        return caller

    async def _look_up(self, digest: bytes) -> Caller | None:
        """Find a key in the store; calls with the same key share the query."""
        lookup = self._lookups.get(digest)
        if lookup is None:
            if len(self._lookups) >= _MOST_LOOKUPS:
                raise errors.Overloaded
            lookup = asyncio.create_task(self._find(digest))
            self._lookups[digest] = lookup
            lookup.add_done_callback(lambda _: self._lookups.pop(digest, None))
        try:
            return await asyncio.shield(lookup)
        except (StoreError, TimeoutError) as error:
            raise errors.StoreUnavailable from error

    async def _find(self, digest: bytes) -> Caller | None:
        # What takes too long leaves the queue: a store that is away does not fill it.
        async with asyncio.timeout(PATIENCE):
            caller = await self._batches.read(self._directory.find, digest)
        (self._strangers if caller is None else self._callers).put(digest, caller)
        return caller

    @asynccontextmanager
    async def admit(
        self,
        caller: Caller,
        call: Call,
        params: ChatCompletionParams,
        model: Model,
        *,
        wants_usage: bool,
    ) -> AsyncIterator[Progress]:
        """Hold what a call may use, and settle what it used however it ends.

        Raises:
            Failure: the call is not admitted, and nothing is held; or, at the end of a call that
                was complete, its settlement is on no disk.
        """
        bound = bound_of(params, model, output_limit(params, model))
        place = Place(
            hold_id=hold_id(self._wall_clock()),
            account_id=caller.account_id,
            key_id=caller.key_id,
            amount=price(model, bound.prompt_tokens, bound.completion_tokens),
            tokens=bound.tokens,
            model=model.name,
            owner=self._owner,
            lease=_lease(call),
        )
        progress = Progress(
            wants_usage=wants_usage,
            prompt_estimate=estimate(params, model),
            most=bound.completion_tokens,
            choices=params.n or 1,
        )
        outcome = await self._place(place)
        call.rate_limit = _headers(outcome.requests, outcome.tokens)
        if isinstance(outcome, Refused):
            raise _failure(outcome, bound, params, model)
        failed = True
        try:
            yield progress
            failed = False
        finally:
            ending = _ending(place, progress, model, failed=failed)
            if isinstance(ending, Settle):
                call.record.prompt_tokens = ending.prompt_tokens
                call.record.completion_tokens = ending.completion_tokens
                call.record.estimated = ending.estimated
            # Chunks are given to the caller as they come, a whole answer only after this.
            otherwise = _unkept(ending, streamed=call.record.chunks > 0)
            # A second cancellation leaves this wait, not the settlement.
            kept = await asyncio.shield(self._start(self._end(ending, otherwise), otherwise))
        if not kept:
            raise errors.StoreUnavailable(
                "What the request used cannot be recorded.", dispatched=True
            )

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

    async def _place(self, place: Place) -> Placed | Refused:
        waiter = self._batches.submit(place)
        try:
            async with asyncio.timeout(PATIENCE):
                outcome = await asyncio.shield(waiter)
        except BaseException as error:
            # Whether the hold was placed is not known yet; if it is, nobody will use it.
            self._start(self._undo(place, waiter), _release(place))
            if isinstance(error, (StoreError, TimeoutError)):
                raise errors.StoreUnavailable from error
            raise
        if not isinstance(outcome, (Placed, Refused)):
            raise TypeError("not the outcome of a Place")
        return outcome

    async def _undo(self, place: Place, waiter: "asyncio.Future[Outcome]") -> bool:
        """Release a hold that was placed too late, once that is known; return whether it is."""
        await asyncio.wait((waiter,), timeout=ANSWER_WITHIN)
        # After an error the transaction may have been committed all the same.
        answered = waiter.done() and waiter.exception() is None
        if answered and isinstance(waiter.result(), Refused):
            return True
        return await self._end(_release(place), _release(place))

    def _start(self, task: Coroutine[None, None, bool], ending: Ending) -> asyncio.Task[bool]:
        started = asyncio.create_task(task)
        self._endings[started] = ending
        started.add_done_callback(self._endings.pop)
        return started

    async def _end(self, ending: Ending, otherwise: Ending) -> bool:
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
                async with asyncio.timeout(PATIENCE):
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


def _lease(call: Call) -> int:
    remaining = max(call.deadline - asyncio.get_running_loop().time(), 0.0)
    return int((remaining + LEASE_BEYOND_DEADLINE) * _SECOND)


def _ending(place: Place, progress: Progress, model: Model, *, failed: bool) -> Ending:
    """Return how a hold ends, by the table of this module."""
    if failed and not progress.delivered:
        return _release(place)
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


def _unkept(ending: Ending, *, streamed: bool) -> Ending:
    """Return how the hold ends of a call that fails for its ending cannot be kept."""
    if isinstance(ending, Settle) and streamed:
        return structs.replace(ending, partial=True)
    return _release(ending)


def _release(of: Place | Ending) -> Release:
    return Release(hold_id=of.hold_id, account_id=of.account_id, key_id=of.key_id)


def _failure(
    refused: Refused, bound: Bound, params: ChatCompletionParams, model: Model
) -> errors.Failure:
    """Return what a refusal is told as."""
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
            fits = largest_output(model, bound, params.n or 1, refused.available)
            hint = f" The largest max_tokens that it covers is {fits}." if fits else ""
            return kind(kind.default_message + hint)
        case limit:
            # It is told in whole milliseconds, which are cut: one more, so that waiting suffices.
            wait = (refused.wait + _MILLISECOND) / _SECOND if refused.wait else None
            message = f"Rate limit reached: {limit.value}."
            if limit is Refusal.TOKENS and wait is None and refused.tokens is not None:
                besides = bound.prompt_tokens + bound.predicted_tokens
                fits = (refused.tokens.limit - besides) // (params.n or 1)
                message += f" The largest max_tokens that fits is {fits}." if fits > 0 else ""
            return errors.RateLimited.of(limit.value, message, wait)


def _headers(requests: Level | None, tokens: Level | None) -> Headers:
    """Return the headers that say how much of each limit is left."""
    headers: list[tuple[str, str]] = []
    for name, level in (("requests", requests), ("tokens", tokens)):
        if level is not None:
            headers += [
                (f"x-ratelimit-limit-{name}", str(level.limit)),
                (f"x-ratelimit-remaining-{name}", str(level.remaining)),
                (f"x-ratelimit-reset-{name}", duration(level)),
            ]
    return tuple(headers)


def duration(level: Level) -> str:
    """Return the time until a limit is full again as OpenAI writes it: `6m0s`, `1.2s`, `20ms`."""
    milliseconds = -(-level.reset // 1_000_000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    seconds = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"

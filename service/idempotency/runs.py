"""One run of a request with an idempotency key, which its callers share.

    perform -> the servicer, as for a call without a key -> log
            -> ClaimedError: another request   IDEMPOTENCY_CONFLICT
                             kept              replay -> log
                             not kept          ANSWER_NOT_KEPT
                             it runs elsewhere look again until it ends, or take the claim over

The run has a task and a `Call` of its own. As long as the first caller stays, that caller's record
is the run's. When that caller leaves, the run becomes a call in flight by itself, with its own log
line; when all callers have left, the run is cancelled after a while. A drain ends it like any call.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from chatcompletion.openai_json import TextChunk
from process import log
from service import errors
from service.admission import Admission, ClaimedError
from service.authentication import Authentication
from service.call import CURRENT, Call, Calls
from service.idempotency import answer_form
from service.idempotency.logs import AnswerLog, LogReader, Memory
from service.idempotency.recording import (
    RecordedAdmission,
    RecordedUpstream,
    Recording,
    failure_of,
)
from service.ledger.batches import Batches
from service.ledger.rows import AnswerState, Claim, Claimed
from service.ledger.store import StoreError
from service.ledger.stored_answers import Answers
from service.models import Models
from service.quotes import Quotes
from service.servicer import ChatCompletionServicer
from service.telemetry import CallRecord, Telemetry
from service.upstream.client import UpstreamClient

_FIRST_LOOK: Final = 0.05
_LAST_LOOK: Final = 1.0
"""Seconds between two looks at a run of another process: doubled from the first to the last."""

_OF_THE_RUN: Final = (
    *("first_chunk", "last_chunk", "chunks", "upstream_attempts", "mended", "overran"),
    *("upstream", "upstream_status", "upstream_seconds"),
)
"""The fields of a record that go on with the run when its first caller leaves."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunParts:
    """What runs use."""

    authentication: Authentication
    admission: Admission
    catalogue: Models
    upstream: UpstreamClient
    quotes: Quotes
    batches: Batches
    answers: Answers
    calls: Calls
    telemetry: Telemetry
    memory: Memory
    max_request_bytes: int
    max_answer_bytes: int
    linger: float
    """Seconds for which a run continues without callers."""
    longest: float
    """Maximum seconds of a run."""
    clock: Callable[[], float]
    """A monotonic clock in seconds, for durations."""


class Run:
    """One run. Create it in the first caller's task.

    Args:
        parts: What it uses.
        claim: The idempotency key.
        request: The request message.
        context: The context of the first caller.
        caller: The call of the first caller.
        streamed: Whether the method is a streaming one.
        ended: Called when the run has ended.
    """

    def __init__(
        self,
        parts: RunParts,
        claim: Claim,
        request: Any,
        context: Any,
        caller: Call,
        *,
        streamed: bool,
        ended: Callable[["Run"], None],
    ) -> None:
        self.claim = claim
        self.is_replayed = False
        """Whether the answer is that of an earlier call."""
        self._parts = parts
        self._request = request
        self._context = context
        self._owner: Call | None = caller
        self._streamed = streamed
        self._ended = ended
        self._is_done = False
        self._readers = 0
        self._timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        self._call = replace(
            caller,
            authorization=None,
            deadline=loop.time() + parts.longest,
            deadline_is_callers=False,
            limits=None,
            held_bytes=0,
        )
        self._log = AnswerLog(parts.max_answer_bytes, parts.memory)
        self._recording = Recording(claim, self._call, self._log, parts.max_answer_bytes)
        self._servicer = ChatCompletionServicer(
            parts.authentication,
            RecordedAdmission(parts.admission, self._recording),
            parts.catalogue,
            RecordedUpstream(parts.upstream, self._recording),
            quotes=parts.quotes,
            max_request_bytes=parts.max_request_bytes,
            clock=parts.clock,
        )
        self._task = asyncio.create_task(self._main())
        self._call.task = self._task

    @property
    def hold_id(self) -> str:
        """The hold of the answer; "" until it is known."""
        return self._recording.hold_id

    @asynccontextmanager
    async def attended(self, call: Call, position: int = 0) -> AsyncIterator[LogReader]:
        """Yield a reader of the messages for a caller.

        Args:
            call: The call of the caller, which learns its receipt at the end.
            position: The number of messages to skip.
        """
        self._readers += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        is_joiner = call is not self._owner
        try:
            with self._log.reading(position) as reader:
                yield reader
        except (asyncio.CancelledError, GeneratorExit):
            # The latter if the call was cancelled while it wrote.
            if call.draining:
                self._cut()
                await asyncio.wait((self._task,))
            raise
        finally:
            self.tell(call, is_joiner=is_joiner)
            self._leave(call)

    def tell(self, call: Call, *, is_joiner: bool | None = None) -> None:
        """Tell a caller's call what is known of the run: its limits, receipt and state."""
        if is_joiner is None:
            is_joiner = call is not self._owner
        call.is_replayed = is_joiner or self.is_replayed
        call.rate_limit = self._call.rate_limit
        call.charge = self._call.charge
        call.dispatched = self._call.dispatched
        if is_joiner:
            call.record.model = self._call.record.model
            call.record.pattern = self._call.record.pattern

    async def close(self) -> None:
        """End the run, and wait for its end."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    def _leave(self, call: Call) -> None:
        self._readers -= 1
        if self._is_done:
            self._release()
            return
        if call is self._owner:
            self._go_on_alone(call)
        if self._readers == 0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._parts.linger, self._task.cancel)

    def _go_on_alone(self, call: Call) -> None:
        """Become a call in flight by itself, because the first caller leaves."""
        self._owner = None
        record, fresh = call.record, CallRecord(method="", request_id="", started=0.0)
        self._call.record = replace(record, reason="")
        for name in _OF_THE_RUN:
            setattr(record, name, getattr(fresh, name))
        self._call.held_bytes, call.held_bytes = call.held_bytes, 0
        self._parts.calls.add(self._call)
        self._parts.telemetry.begin(self._call.record)

    def _cut(self) -> None:
        self._call.draining = True
        self._task.cancel()

    def _release(self) -> None:
        if self._readers == 0:
            self._log.clear()

    async def _main(self) -> None:
        CURRENT.set(self._call)
        failure: errors.Failure | None = None
        try:
            async with asyncio.timeout_at(self._call.deadline):
                await self._perform()
        except asyncio.CancelledError as error:
            failure = failure_of(error, self._call)
            raise
        except Exception as error:  # noqa: BLE001  (its callers raise it)
            failure = failure_of(error, self._call)
            if isinstance(failure, errors.Internal) and failure is not error:
                members = log.fields(request_id=self._call.record.request_id)
                _log.error("unexpected exception", exc_info=error, extra=members)
        finally:
            self._end(failure)

    def _end(self, failure: errors.Failure | None) -> None:
        self._is_done = True
        self._ended(self)
        self._log.end(failure)
        if self._timer is not None:
            self._timer.cancel()
        if self._owner is None:
            parts, record = self._parts, self._call.record
            record.reason = "" if failure is None else failure.reason
            record.upstream_report = None if failure is None else failure.report
            parts.calls.end(self._call)
            parts.calls.discard(self._call)
            parts.telemetry.end(record, parts.clock())
        self._release()

    async def _perform(self) -> None:
        while True:
            try:
                await (self._stream() if self._streamed else self._create())
            except ClaimedError as error:
                other = error.claimed
            else:
                return
            if await self._replay(other):
                return

    async def _create(self) -> None:
        response = await self._servicer.CreateChatCompletion(self._request, self._context)
        await self._log.append(response.SerializeToString())

    async def _stream(self) -> None:
        chunks = self._servicer.StreamChatCompletion(self._request, self._context)
        async with aclosing(chunks) as stream:
            async for responses in stream:
                for response in responses:
                    await self._log.append(
                        response.serialize()
                        if isinstance(response, TextChunk)
                        else response.SerializeToString()
                    )

    async def _replay(self, other: Claimed) -> bool:
        """Take the answer of another call. Return False if the request can run now.

        Raises:
            IdempotencyConflict: The other call had another request.
            AnswerNotKept: Its answer is not available.
            StoreUnavailable: The store is away.
        """
        if other.body != self.claim.body:
            raise errors.IdempotencyConflict
        if other.state is AnswerState.NOT_KEPT:
            raise errors.AnswerNotKept
        if other.state is AnswerState.RUNNING:
            await self._wait_for(other)
            return False
        answers = self._parts.answers
        content = await self._read(partial(answers.content, self.claim.id, other.hold_id))
        if content is None:
            return False
        replay = answer_form.replay(
            answer_form.decode(content), other.hold_id, other.charged, self._parts.admission.worth
        )
        self.is_replayed = True
        self._recording.hold_id = other.hold_id
        self._call.charge = replay.charge
        for message in replay.messages:
            await self._log.append(message)
        if replay.failure is not None:
            raise replay.failure
        return True

    async def _wait_for(self, other: Claimed) -> None:
        """Wait until the run of another process has ended or has lost its claim."""
        wait = _FIRST_LOOK
        while True:
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LAST_LOOK)
            seen = await self._read(partial(self._parts.answers.seen, self.claim.id))
            if seen is None or seen.is_over or seen.state is not AnswerState.RUNNING:
                return
            if seen.hold_id != other.hold_id:
                return

    async def _read(self, query: Callable[[], _T]) -> _T:
        try:
            return await self._parts.batches.read(query)
        except StoreError as error:
            raise errors.StoreUnavailable from error

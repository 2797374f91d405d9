"""What a run stores with its settlement: its messages, the parts of its receipt, its failure.

admission: Place with the claim -> placed
admission: Settle -> ending -> Settle with the answer, if the log is whole
upstream: the completion of a unary call, which its log gets only after the settlement
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from msgspec import structs

from chatcompletion.v1.chat_completion_pb2 import ChatCompletion
from service import errors
from service.accounts.keys import Caller
from service.admission import Admission
from service.call import Call
from service.idempotency import answer_form
from service.idempotency.logs import AnswerLog
from service.ledger.journal import Ending
from service.ledger.rows import Claim, Settle
from service.metering.progress import Progress
from service.request import AcceptedRequest
from service.upstream.chunks import Response
from service.upstream.client import UpstreamClient

LEFT: Final = (
    "The caller of the request with this idempotency key left, and the request was ended. The "
    "output until then was charged. It is not run again; to run it again, use a new key."
)
_TICK: Final = 0.002
"""Seconds by which the loop's clock can lag at a deadline: uvloop's clock has milliseconds."""


class Recording:
    """The answer of one run, as it is stored.

    Args:
        claim: The claim of the run.
        call: The call of the run.
        log: The messages of the run.
        most: Maximum size of an answer, in bytes.
    """

    def __init__(self, claim: Claim, call: Call, log: AnswerLog, most: int) -> None:
        self.claim = claim
        self.hold_id = ""
        """The hold of the run; "" until it is placed."""
        self.completion: bytes | None = None
        """The completion of a unary call."""
        self._call = call
        self._log = log
        self._most = most

    def placed(self, hold_id: str) -> None:
        """Note the hold of the run."""
        self.hold_id = hold_id

    def ending(self, ending: Ending, progress: Progress) -> Ending:
        """Return the ending of the hold with the answer, if there is one to store."""
        if not isinstance(ending, Settle):
            return ending
        if self.completion is not None:
            messages: Sequence[bytes] = [self.completion]
        elif self._log.is_whole:
            messages = self._log.entries
        else:
            return ending
        if sum(map(len, messages)) > self._most:
            return ending
        error, kept = sys.exception(), progress.kept
        failure = None if error is None else failure_of(error, self._call)
        answer = answer_form.Stored(
            streamed=self.completion is None,
            messages=list(messages),
            receipt=self._call.gives_receipt,
            prompt_tokens=ending.prompt_tokens,
            completion_tokens=ending.completion_tokens,
            used_estimated=progress.used.estimated,
            prompt_charge=ending.prompt_charge,
            estimated=ending.estimated,
            partial=ending.partial,
            usage_chunk=None if kept is None else kept.chunk.SerializeToString(),
            failure=answer_form.failure_form(failure),
        )
        return structs.replace(ending, answer=answer_form.encode(answer))


def failure_of(error: BaseException, call: Call) -> errors.Failure:
    """Return the failure of a run that ended with an exception.

    Args:
        error: The exception.
        call: The call of the run.
    """
    if isinstance(error, errors.Failure):
        return error
    if isinstance(error, (asyncio.CancelledError, GeneratorExit, TimeoutError)):
        if call.draining:
            return errors.Draining(dispatched=call.dispatched)
        is_late = asyncio.get_running_loop().time() >= call.deadline - _TICK
        if is_late or isinstance(error, TimeoutError):
            return errors.UpstreamTimeout(dispatched=call.dispatched)
        return errors.AnswerNotKept(LEFT)
    return errors.Internal(
        f"{errors.Internal.default_message} Request id: {call.record.request_id}",
        dispatched=call.dispatched,
    )


class RecordedAdmission:
    """The admission of one run, with its claim.

    Args:
        admission: The admission.
        recording: The recording of the run.
    """

    def __init__(self, admission: Admission, recording: Recording) -> None:
        self._admission = admission
        self._recording = recording

    def admit(
        self, caller: Caller, call: Call, request: AcceptedRequest, *, wants_usage: bool
    ) -> AbstractAsyncContextManager[Progress]:
        """Hold the maximum cost of the call, as `Admission.admit`.

        Raises:
            ClaimedError: Another call has the idempotency key.
        """
        return self._admission.admit(
            caller, call, request, wants_usage=wants_usage, recording=self._recording
        )


class RecordedUpstream:
    """The upstream of one run.

    Args:
        upstream: The client of the upstreams.
        recording: The recording of the run.
    """

    def __init__(self, upstream: UpstreamClient, recording: Recording) -> None:
        self._upstream = upstream
        self._recording = recording

    async def complete(
        self, request: AcceptedRequest, call: Call, progress: Progress
    ) -> ChatCompletion:
        """Return the completion, as `UpstreamClient.complete`, and record it."""
        completion = await self._upstream.complete(request, call, progress)
        self._recording.completion = completion.SerializeToString()
        return completion

    def stream(
        self, request: AcceptedRequest, call: Call, progress: Progress, *, in_process: bool
    ) -> AsyncGenerator[list[Response]]:
        """Yield the responses as for a caller on the wire, whose messages the log can keep."""
        del in_process
        return self._upstream.stream(request, call, progress, in_process=False)

"""The RPCs of ChatCompletionService, for calls with and without an idempotency key.

    without a key   the servicer itself
    with a key      authenticate -> check the key -> join its run, or start one -> read its messages

A call without a key costs one comparison more than without this module.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from functools import partial
from typing import Any, Final, TypeAlias
from uuid import uuid4

from grpc.aio import ServicerContext

from chatcompletion.v1 import chat_completion_service_pb2, chat_completion_service_pb2_grpc
from process.in_process import InProcessContext
from service import errors
from service.call import CURRENT, Call
from service.idempotency import idempotency_keys
from service.idempotency.runs import Run, RunParts
from service.ledger.rows import Claim
from service.ledger.store import StoreError
from service.servicer import ChatCompletionServicer
from service.upstream.chunks import Response

LEASE: Final = 20.0
"""Seconds until the claim of a process that ended is free."""

_NO_KEY: Final = (
    "A stream can be resumed only with the Idempotency-Key of the first request. Send both, or "
    "send no Last-Event-ID."
)
_NOT_RESUMABLE: Final = (
    "The stream of this resume token (Last-Event-ID) is not available. Send the request without "
    "the token: the answer is returned from its beginning, and it is charged once."
)
_SECOND: Final = 10**9

_Context: TypeAlias = "ServicerContext[Any, Any]"
_Response: TypeAlias = chat_completion_service_pb2.StreamChatCompletionResponse


class IdempotentChatCompletions(chat_completion_service_pb2_grpc.ChatCompletionServiceServicer):
    """The RPCs of ChatCompletionService.

    Args:
        plain: Serves calls without an idempotency key.
        parts: What runs use.
        keep: Seconds for which answers are stored.
        most: Maximum bytes of all stored answers of an account.
    """

    def __init__(
        self, plain: ChatCompletionServicer, parts: RunParts, *, keep: float, most: int
    ) -> None:
        self._plain = plain
        self._parts = parts
        self._keep = int(keep * _SECOND)
        self._most = most
        self._runs: dict[str, Run] = {}
        self.runner = uuid4().hex
        """The name of this process in its claims."""

    def CreateChatCompletion(  # noqa: N802  (named by the contract)
        self,
        request: chat_completion_service_pb2.CreateChatCompletionRequest,
        context: _Context,
    ) -> Awaitable[chat_completion_service_pb2.CreateChatCompletionResponse]:
        """Return the whole completion."""
        if CURRENT.get().idempotency_key is None:
            return self._plain.CreateChatCompletion(request, context)
        return self._create(request, context)

    def StreamChatCompletion(  # type: ignore[override]  # noqa: N802  (named by the contract; the interceptor writes what it yields)
        self,
        request: chat_completion_service_pb2.StreamChatCompletionRequest,
        context: _Context,
    ) -> AsyncGenerator[list[Response]]:
        """Yield the chunks as they arrive, or as they are stored."""
        if CURRENT.get().idempotency_key is None and not request.HasField("resume_token"):
            return self._plain.StreamChatCompletion(request, context)
        return self._stream(request, context)

    def QuoteChatCompletion(  # noqa: N802  (named by the contract)
        self,
        request: chat_completion_service_pb2.QuoteChatCompletionRequest,
        context: _Context,
    ) -> Awaitable[chat_completion_service_pb2.QuoteChatCompletionResponse]:
        """Return what a completion would hold. An idempotency key has no meaning here."""
        return self._plain.QuoteChatCompletion(request, context)

    @property
    def running(self) -> int:
        """The number of runs."""
        return len(self._runs)

    async def close(self) -> None:
        """End all runs."""
        await asyncio.gather(*(run.close() for run in list(self._runs.values())))

    async def _create(
        self,
        request: chat_completion_service_pb2.CreateChatCompletionRequest,
        context: _Context,
    ) -> chat_completion_service_pb2.CreateChatCompletionResponse:
        call = CURRENT.get()
        claim = await self._claim(request, call, streamed=False)
        run = self._join(claim, request, context, call, streamed=False)
        async with run.attended(call) as reader:
            [message] = await reader.take()
        return chat_completion_service_pb2.CreateChatCompletionResponse.FromString(message)

    async def _stream(
        self,
        request: chat_completion_service_pb2.StreamChatCompletionRequest,
        context: _Context,
    ) -> AsyncGenerator[list[Response]]:
        call = CURRENT.get()
        if call.idempotency_key is None:
            raise errors.InvalidRequest(_NO_KEY, param="Last-Event-ID")
        place = (
            idempotency_keys.place(request.resume_token)
            if request.HasField("resume_token")
            else None
        )
        claim = await self._claim(request, call, streamed=True)
        if place is not None:
            await self._check(place, claim)
        count = 0 if place is None else place.position
        run = self._join(claim, request, context, call, streamed=True)
        at_once = isinstance(context, InProcessContext)
        async with run.attended(call, count) as reader:
            while messages := await reader.take():
                if place is not None and place.hold_id != run.hold_id:
                    raise errors.AnswerNotKept(_NOT_RESUMABLE)
                run.tell(call)
                responses: list[Response] = []
                for message in messages:
                    count += 1
                    response = _Response.FromString(message)
                    response.resume_token = idempotency_keys.token(run.hold_id, count)
                    responses.append(response)
                if at_once:
                    yield responses
                else:
                    for each in responses:
                        yield [each]

    async def _claim(self, request: Any, call: Call, *, streamed: bool) -> Claim:
        """Return the claim of a call.

        Raises:
            Failure: The caller is unknown, or the idempotency key is malformed.
        """
        caller = await self._parts.authentication.authenticate(call)
        key = call.idempotency_key or ""
        idempotency_keys.check(key)
        return Claim(
            id=idempotency_keys.claim_id(caller.key_id, key),
            body=idempotency_keys.body_digest(request.params, streamed=streamed),
            runner=self.runner,
            lease=int(LEASE * _SECOND),
            keep=self._keep,
            most=self._most,
        )

    async def _check(self, place: idempotency_keys.StreamPlace, claim: Claim) -> None:
        """Check that a stream can be resumed, so that a token never starts a new run.

        Raises:
            AnswerNotKept: It cannot.
            StoreUnavailable: The store is away.
        """
        run = self._runs.get(claim.id)
        if run is not None and run.hold_id == place.hold_id:
            return
        try:
            seen = await self._parts.batches.read(partial(self._parts.answers.seen, claim.id))
        except StoreError as error:
            raise errors.StoreUnavailable from error
        if seen is None or seen.is_over or seen.hold_id != place.hold_id:
            raise errors.AnswerNotKept(_NOT_RESUMABLE)

    def _join(
        self, claim: Claim, request: Any, context: _Context, call: Call, *, streamed: bool
    ) -> Run:
        """Return the run of a claim; a new one if there is none.

        Raises:
            IdempotencyConflict: It is that of another request.
        """
        run = self._runs.get(claim.id)
        if run is None:
            run = self._runs[claim.id] = Run(
                self._parts,
                claim,
                request,
                context,
                call,
                streamed=streamed,
                ended=self._ended,
            )
        elif run.claim.body != claim.body:
            raise errors.IdempotencyConflict
        return run

    def _ended(self, run: Run) -> None:
        self._runs.pop(run.claim.id, None)

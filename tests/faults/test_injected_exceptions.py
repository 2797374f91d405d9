"""An exception at each await of a call: a status, correct books, and nothing is left.

the call's coroutine -> await 1 … n of it raises -> INTERNAL, or the answer if it was complete
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Final, cast

import grpc
import pytest

from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from process.in_process import each
from tests.support.accounts_stack import accounts_stack
from tests.support.asking import document, params
from tests.support.footprint import Footprint
from tests.support.grpc_client import Failed, failed
from tests.support.priced_models import CREDIT, cost, priced

MOST_AWAITS: Final = 200


class InjectedError(Exception):
    """Raised at an await."""


class Broken:
    """An awaitable whose coroutine gets an exception at one of its awaits.

    Args:
        coroutine: The coroutine.
        at: The number of the await, from 1.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Failed | None], at: int) -> None:
        self._coroutine = coroutine
        self._at = at
        self.awaits = 0
        """The number of awaits so far."""

    def __await__(self) -> Generator[Any, Any, Failed | None]:
        error: BaseException | None = None
        while True:
            try:
                if error is None:
                    waited = self._coroutine.send(None)
                else:
                    waited, error = self._coroutine.throw(error), None
            except StopIteration as ended:
                failure: Failed | None = ended.value
                return failure
            self.awaits += 1
            if self.awaits == self._at:
                if waited is not None:
                    waited._asyncio_future_blocking = False
                error = InjectedError("canary")
                continue
            try:
                yield waited
            except BaseException as cancelled:  # noqa: BLE001  (passed on to the coroutine)
                error = cancelled


@pytest.mark.alone
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_exception_at_any_await_ends_the_call_and_nothing_else(streamed: bool) -> None:
    async with accounts_stack({"default": priced()}) as stack:
        team = stack.books.team()
        stub = ChatCompletionServiceStub(cast("Any", stack.service.server.channel()))
        options: Any = {"metadata": (("authorization", f"Bearer {team.key}"),), "timeout": 20}
        request = params(document("default"))

        async def ask() -> Failed | None:
            try:
                if streamed:
                    stream = stub.StreamChatCompletion(
                        StreamChatCompletionRequest(params=request), **options
                    )
                    await each(stream, _read)
                else:
                    await stub.CreateChatCompletion(
                        CreateChatCompletionRequest(params=request), **options
                    )
            except grpc.aio.AioRpcError as error:
                return failed(error)
            return None

        assert await ask() is None
        await stack.rests()
        before = Footprint.take()
        reasons = []
        for at in range(1, MOST_AWAITS):
            broken = Broken(ask(), at)
            failure = await asyncio.create_task(_complete(broken))
            if broken.awaits < at:
                break
            reasons.append("OK" if failure is None else failure.reason)
            assert "canary" not in str(failure)
            await stack.rests()
            await before.returns()
        assert broken.awaits < at
        assert len(reasons) > 3
        # A settlement that raises is kept in the journal.
        assert {"INTERNAL"} <= set(reasons) <= {"INTERNAL", "OK"}
        assert await ask() is None
        await stack.rests()

        charges = stack.books.charges(team)
        assert all(charge.amount == cost(charge.prompt, charge.completion) for charge in charges)
        assert len(charges) <= len(stack.upstream.records)
        assert stack.books.balance(team) == CREDIT - sum(charge.amount for charge in charges)
        stack.books.nothing_is_open()


async def _read(_: Sequence[object]) -> None:
    """Take messages."""


async def _complete(broken: Broken) -> Failed | None:
    return await broken

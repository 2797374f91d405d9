"""The ends of holds if the store or the journal fails, or if the caller cancels at any moment."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import pytest
import sqlalchemy as sa

from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
)
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
    StreamChatCompletionResponse,
)
from service import errors
from service.accounts.verification import differences
from service.call import CURRENT, Call
from service.ledger.database import InThread
from service.ledger.journal import Ending
from service.ledger.rows import (
    EntryKind,
    Operation,
    Outcome,
    Place,
    Release,
    Settle,
)
from service.ledger.schema import accounts, api_keys, holds
from service.metering.progress import Progress
from service.models import Catalogue
from service.servicer import ChatCompletionServicer
from tests.support.in_place import InPlace
from tests.unit.service.books import (
    MODEL,
    Books,
    a_call,
    accepted,
    chunk,
    completion,
    params,
    price,
    usage_chunk,
    use,
)

# ------------------------------------------------------------------------- the store goes away


def is_a(*kinds: type) -> Callable[[Operation], bool]:
    return lambda operation: isinstance(operation, kinds)


async def test_a_settlement_that_fails_is_kept(books: Books) -> None:
    books.store.fails_before = is_a(Settle)
    await use(books, lambda progress: progress.take(completion()))

    (kept,) = books.journal.kept().endings
    assert isinstance(kept, Settle)
    assert books.entries == []
    assert books.held > 0


@pytest.mark.parametrize("above", [False, True])
async def test_the_receipt_of_a_charge_in_the_journal_is_what_the_store_charges_later(
    books: Books, above: bool
) -> None:
    hold, call = 0, a_call()
    books.store.fails_before = is_a(Settle)

    def run(progress: Progress) -> None:
        nonlocal hold
        hold = books.held
        progress.observe(chunk())
        progress.observe(usage_chunk(1, 2**40 if above else 1))

    await use(books, run, call=call)

    (kept,) = books.journal.kept().endings
    assert call.charge is not None
    assert call.charge.hold_id == kept.hold_id
    assert call.charge.amount_nano_credits == (hold if above else price(1, 1))


async def test_a_charge_that_is_saved_nowhere_has_no_receipt(kept_nowhere: Books) -> None:
    call = a_call()
    with pytest.raises(errors.StoreUnavailable):
        await use(kept_nowhere, lambda progress: progress.take(completion()), call=call)

    assert call.charge is None


async def test_a_place_whose_answer_was_lost_is_released(books: Books) -> None:
    books.store.fails_after = is_a(Place)
    with pytest.raises(errors.StoreUnavailable):
        await use(books)
    await books.settlement.settled()

    assert books.journal.is_empty()
    books.assert_at_rest()


def fail(_: Progress) -> None:
    raise KeyError("nothing was delivered")


async def test_a_release_that_fails_is_kept(books: Books) -> None:
    books.store.fails_before = is_a(Release)
    with pytest.raises(KeyError):
        await use(books, fail)

    assert [type(kept) for kept in books.journal.kept().endings] == [Release]


def full(*_: object) -> None:
    raise OSError("No space left on device")


@pytest.fixture
def kept_nowhere(books: Books, monkeypatch: pytest.MonkeyPatch) -> Books:
    """Books whose store and journal both reject the ending of a hold."""
    monkeypatch.setattr(books.journal, "append", full)
    books.store.fails_before = is_a(Settle, Release)
    return books


async def replay(books: Books) -> None:
    """Apply the settlements in memory to the store."""
    books.store.fails_before = is_a()
    unwritten = books.journal.unwritten.endings()
    for ending in unwritten:
        await books.batches.submit(ending)
    books.journal.unwritten.forget(unwritten)


async def test_a_whole_answer_that_is_kept_nowhere_is_not_given_and_costs_nothing(
    kept_nowhere: Books, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(errors.StoreUnavailable) as failed:
        await use(kept_nowhere, lambda progress: progress.take(completion()))
    assert failed.value.dispatched
    assert not failed.value.retryable
    assert "a settlement is in memory only" in caplog.text
    await replay(kept_nowhere)

    assert kept_nowhere.entries == []
    kept_nowhere.assert_at_rest()


def streams(call: Call, *chunks: ChatCompletionChunk) -> Callable[[Progress], None]:
    def run(progress: Progress) -> None:
        for each in chunks:
            if progress.observe(each):
                call.record.note_chunks(1, 0.0)

    return run


async def test_a_stream_that_is_kept_nowhere_ends_without_success_and_costs_what_was_delivered(
    kept_nowhere: Books,
) -> None:
    call = a_call()
    run = streams(call, chunk(), chunk(finish="stop"), usage_chunk(11, 7))
    with pytest.raises(errors.StoreUnavailable) as failed:
        await use(kept_nowhere, run, call=call)
    assert not failed.value.retryable
    await replay(kept_nowhere)

    (entry,) = kept_nowhere.entries
    assert (entry.amount, entry.partial) == (-price(11, 7), True)
    kept_nowhere.assert_at_rest()


async def test_a_call_that_failed_and_is_kept_nowhere_fails_for_its_own_reason(
    kept_nowhere: Books,
) -> None:
    call = a_call()

    def cut(progress: Progress) -> None:
        streams(call, chunk(), chunk())(progress)
        raise errors.UpstreamTruncated

    with pytest.raises(errors.UpstreamTruncated):
        await use(kept_nowhere, cut, call=call)
    with pytest.raises(KeyError):
        await use(kept_nowhere, fail)
    assert [type(each) for each in kept_nowhere.journal.unwritten.endings()] == [Settle, Release]
    await replay(kept_nowhere)

    assert [(entry.completion_tokens, entry.partial) for entry in kept_nowhere.entries] == [
        (2, True)
    ]
    kept_nowhere.assert_at_rest()


async def test_what_ends_together_shares_few_flushes_of_the_journal(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.store.fails_before = is_a(Settle)
    appended: list[int] = []
    append = books.journal.append

    def counted(*endings: Ending) -> None:
        appended.append(len(endings))
        append(*endings)

    monkeypatch.setattr(books.journal, "append", counted)
    calls = 50
    await asyncio.gather(
        *(use(books, lambda progress: progress.take(completion())) for _ in range(calls))
    )

    assert sum(appended) == calls
    assert len(appended) <= 5
    assert len(books.journal.kept().endings) == calls


async def test_a_charge_that_the_store_cannot_apply_is_kept(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    applying = books.store.applying

    async def fails(operations: Sequence[Operation], in_thread: InThread) -> list[Outcome]:
        if any(map(is_a(Settle), operations)):
            raise OverflowError("a number that the store cannot hold")
        return await applying(operations, in_thread)

    monkeypatch.setattr(books.store, "applying", fails)
    await use(books, lambda progress: progress.take(completion()))

    assert [type(kept) for kept in books.journal.kept().endings] == [Settle]
    assert "a settlement failed" in caplog.text


async def test_a_charge_whose_hold_the_store_does_not_know_is_kept(books: Books) -> None:
    def restore(progress: Progress) -> None:
        progress.take(completion())
        with books.store.writing() as connection:
            connection.execute(sa.delete(holds))
            connection.execute(sa.update(api_keys).values(created_at=1))

    await use(books, restore)

    assert [type(kept) for kept in books.journal.kept().endings] == [Settle]


async def test_a_charge_whose_hold_the_store_lost_is_charged(books: Books) -> None:
    def lose(progress: Progress) -> None:
        progress.take(completion())
        with books.store.writing() as connection:
            connection.execute(sa.delete(holds))
            connection.execute(sa.update(accounts).values(held=0))
            connection.execute(sa.update(api_keys).values(running=0))

    await use(books, lose)

    assert books.journal.is_empty()
    assert [entry.kind for entry in books.entries] == [EntryKind.ADJUST]
    assert list(differences(books.store)) == []


async def test_a_drain_does_not_wait_for_ever_for_settlements(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.settlement.SETTLED_WITHIN", 0.01)
    books.be_patient(60.0)
    monkeypatch.setattr("service.admission.ANSWER_WITHIN", 60.0)
    submit, loop = books.batches.submit, asyncio.get_running_loop()
    unanswered: list[Operation] = []
    come = asyncio.Event()

    def silent(operation: Operation) -> "asyncio.Future[Outcome]":
        if isinstance(operation, Place) and not unanswered:
            return submit(operation)
        unanswered.append(operation)
        come.set()
        return loop.create_future()

    with monkeypatch.context() as dead:
        dead.setattr(books.batches, "submit", silent)
        settling = asyncio.create_task(use(books, lambda progress: progress.take(completion())))
        await come.wait()
        come.clear()
        placing = asyncio.create_task(use(books))
        await come.wait()
        # A drain first ends the calls.
        placing.cancel()
        settling.cancel()
        await asyncio.wait((placing, settling))
        async with asyncio.timeout(10):
            await books.settlement.settled()
    # The first call, whose response was unary, has ended.
    assert settling.cancelled()
    left = books.journal.unwritten.endings()
    assert [type(ending) for ending in left] == [Release, Release]
    assert {ending.hold_id for ending in left} == {
        operation.hold_id for operation in unanswered if isinstance(operation, (Settle, Place))
    }
    await replay(books)
    books.assert_at_rest()


async def test_a_place_that_is_never_answered_is_released(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    await books.caller()  # looked up now, without a time limit
    books.be_patient(0.01)
    monkeypatch.setattr("service.admission.ANSWER_WITHIN", 0.01)
    loop = asyncio.get_running_loop()
    submitted: list[Operation] = []

    def submit(operation: Operation) -> "asyncio.Future[Outcome]":
        submitted.append(operation)
        return loop.create_future()

    with monkeypatch.context() as dead:
        dead.setattr(books.batches, "submit", submit)
        with pytest.raises(errors.StoreUnavailable):
            await use(books)
        async with asyncio.timeout(10):
            await books.settlement.settled()

    assert [type(operation) for operation in submitted] == [Place, Release]
    assert [type(kept) for kept in books.journal.kept().endings] == [Release]


async def test_who_does_not_wait_for_the_settlement_does_not_stop_it(books: Books) -> None:
    admitted = asyncio.Event()

    async def run() -> None:
        async with books.admission.admit(
            await books.caller(), a_call(), accepted(), wants_usage=False
        ) as progress:
            progress.take(completion())
            admitted.set()
            await asyncio.get_running_loop().create_future()

    call = asyncio.create_task(run())
    await admitted.wait()
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait((call,))
    assert call.cancelled()
    await books.settlement.settled()

    assert len(books.entries) == 1
    books.assert_at_rest()


# ----------------------------------------------------------------- cancelled at every moment


class FakeUpstream:
    """An upstream that responds in a few steps."""

    async def complete(self, *_: object) -> ChatCompletion:
        for _step in range(4):
            await asyncio.sleep(0)
        return completion({"prompt_tokens": 11, "completion_tokens": 3})

    async def stream(
        self, _: object, __: object, progress: Progress, *, in_process: bool
    ) -> AsyncGenerator[Sequence[StreamChatCompletionResponse]]:
        for each in (chunk(""), chunk(), chunk(), chunk(finish="stop"), usage_chunk(11, 3)):
            await asyncio.sleep(0)
            if progress.observe(each):
                yield [StreamChatCompletionResponse(chunk=each)]
        await asyncio.sleep(0)


STEPS: Final = 80
"""More steps than a call has; a test checks that."""


async def serve(books: Books, *, streamed: bool) -> None:
    upstream = cast("Any", FakeUpstream())
    servicer = ChatCompletionServicer(
        books.authentication,
        books.admission,
        Catalogue(models=MappingProxyType({"default": MODEL})),
        upstream,
        quotes=cast("Any", None),
        max_request_bytes=10_000,
        clock=lambda: 0.0,
    )
    CURRENT.set(a_call(authorization=f"Bearer {books.key}"))
    context = cast("Any", None)
    if not streamed:
        await servicer.CreateChatCompletion(CreateChatCompletionRequest(params=params()), context)
        return
    request = StreamChatCompletionRequest(params=params())
    async with aclosing(servicer.StreamChatCompletion(request, context)) as responses:
        async for _ in responses:
            await asyncio.sleep(0)


@pytest.mark.parametrize("again", [None, 0, 1, 2, 5])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_can_be_cancelled_at_any_moment(
    tmp_path: Path, streamed: bool, again: int | None
) -> None:
    books = Books(tmp_path, InPlace)
    endings: dict[str, int] = {"left": 0, "complete": 0}
    for step in range(STEPS):
        if step % 2:
            books.monotonic += 10  # the cached lookup expires
        charged = len(books.entries)
        call = asyncio.create_task(serve(books, streamed=streamed))
        for _ in range(step):
            await asyncio.sleep(0)
        call.cancel()
        if again is not None:
            for _ in range(again):
                await asyncio.sleep(0)
            call.cancel()
        await asyncio.wait((call,))
        await books.settlement.settled()
        endings["left" if call.cancelled() else "complete"] += 1
        books.assert_at_rest()
        new = books.entries[: len(books.entries) - charged]
        assert len(new) <= 1
        for entry in new:
            tokens = entry.completion_tokens
            assert -entry.amount == price(entry.prompt_tokens, tokens)
            assert 1 <= tokens <= 3
            assert entry.partial or not call.cancelled() or tokens == 3
        if not call.cancelled():
            assert len(new) == 1
    assert min(endings.values()) > 3
    assert books.journal.is_empty()
    await books.close()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", [Place, Settle, Release])
@pytest.mark.parametrize("committed", [False, True])
async def test_the_store_can_go_away_at_any_moment_of_a_call_that_is_cancelled(
    tmp_path: Path, streamed: bool, kind: type, committed: bool
) -> None:
    books = Books(tmp_path, InPlace)
    for step in range(STEPS):
        setattr(books.store, "fails_after" if committed else "fails_before", is_a(kind))
        call = asyncio.create_task(serve(books, streamed=streamed))
        for _ in range(step):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait((call,))
        await books.settlement.settled()
        if not call.cancelled():
            call.exception()
        books.store.fails_before = books.store.fails_after = is_a()
        kept = books.journal.kept()
        for ending in kept.endings:
            await books.batches.submit(ending)
        assert books.journal.forget(kept)
        books.assert_at_rest()
    await books.close()


@pytest.mark.parametrize("streamed", [False, True])
async def test_store_and_journal_can_fail_at_any_moment_of_a_call_that_is_cancelled(
    tmp_path: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books(tmp_path, InPlace)
    monkeypatch.setattr(books.journal, "append", full)
    left = 0
    for step in range(STEPS):
        charged = len(books.entries)
        books.store.fails_before = is_a(Settle, Release)
        call = asyncio.create_task(serve(books, streamed=streamed))
        for _ in range(step):
            await asyncio.sleep(0)
        call.cancel()
        (ended,) = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(ended, (errors.StoreUnavailable, asyncio.CancelledError))
        left += call.cancelled()
        await books.settlement.settled()
        await replay(books)
        books.assert_at_rest()
        new = books.entries[: len(books.entries) - charged]
        # No part of a unary response was delivered; the delivered part of a stream is charged.
        assert len(new) <= streamed
        for entry in new:
            assert entry.partial
            assert 1 <= entry.completion_tokens <= 3
        if streamed and isinstance(ended, errors.StoreUnavailable):
            assert [entry.completion_tokens for entry in new] == [3]
    assert left > 3
    await books.close()

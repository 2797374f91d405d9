"""Group commit, with a fake store."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from service.ledger.batches import LARGEST_BATCH, MOST_PENDING, Batches
from service.ledger.database import InThread, blocking
from service.ledger.rows import Grant, Granted, Operation, Outcome
from service.ledger.store import Store, StoreError
from tests.support.in_place import InPlace


class Pretended(Store):
    """Returns the amounts of grants. The first batch waits until the test releases it."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.began = threading.Event()
        self.go = threading.Event()
        self.error: Exception | None = None
        self.interrupted = False

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        return await blocking(partial(self._answers, operations), in_thread)

    def _answers(self, operations: Sequence[Operation]) -> list[Outcome]:
        self.batches.append(len(operations))
        self.began.set()
        assert self.go.wait(10)
        if self.interrupted:
            raise StoreError("interrupted")
        if self.error is not None:
            raise self.error
        grants = [operation for operation in operations if isinstance(operation, Grant)]
        if any(grant.amount == 13 for grant in grants):
            raise RuntimeError("unlucky")
        return [Granted(balance=grant.amount) for grant in grants]

    def interrupt(self) -> None:
        self.interrupted = True
        self.go.set()


def grant(amount: int) -> Grant:
    return Grant(account_id=1, amount=amount, idempotency_id=str(amount))


async def began(store: Pretended) -> None:
    assert await asyncio.to_thread(store.began.wait, 10)


async def test_what_arrives_meanwhile_is_the_next_batch() -> None:
    store, first = Pretended(), 1
    batches = Batches(store)
    waiters = [batches.submit(grant(first))]
    await began(store)
    waiters += [batches.submit(grant(100 + number)) for number in range(LARGEST_BATCH + 5)]
    store.go.set()
    outcomes = await asyncio.gather(*waiters)
    assert store.batches == [1, LARGEST_BATCH, 5]
    assert outcomes[0] == Granted(balance=1)
    assert outcomes[-1] == Granted(balance=100 + LARGEST_BATCH + 4)
    await batches.close()


async def test_those_who_were_told_join_the_next_batch() -> None:
    store = Pretended()
    store.go.set()
    batches = Batches(store)

    async def caller(number: int) -> None:
        for turn in range(10):
            await batches.submit(grant(100 + number * 10 + turn))

    await asyncio.gather(*(caller(number) for number in range(32)))
    assert store.batches == [32] * 10
    await batches.close()


async def test_what_comes_within_some_turns_shares_a_batch() -> None:
    store = Pretended()
    store.go.set()
    batches = Batches(store, gather_within=60)
    waiters = [batches.submit(grant(99))]
    for amount in range(100, 104):
        waiters.append(batches.submit(grant(amount)))
        for _ in range(6):
            await asyncio.sleep(0)
    await asyncio.gather(*waiters)
    await batches.submit(grant(104))
    assert store.batches == [5, 1]
    await batches.close()


async def test_a_lone_operation_waits_for_no_company() -> None:
    store = Pretended()
    store.go.set()
    batches = InPlace(store, gather_within=60)
    for amount in range(100, 103):
        waiter = batches.submit(grant(amount))
        turns = 0
        while not waiter.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns < 8
    assert store.batches == [1, 1, 1]
    await batches.close()


async def test_an_operation_after_a_shared_batch_waits_for_company() -> None:
    store = Pretended()
    store.go.set()
    batches = Batches(store, gather_within=60)
    await asyncio.gather(*(batches.submit(grant(amount)) for amount in (100, 101)))
    waiters = []
    for amount in (102, 103):
        waiters.append(batches.submit(grant(amount)))
        for _ in range(6):
            await asyncio.sleep(0)
    await asyncio.gather(*waiters)
    assert store.batches == [2, 2]
    await batches.close()


async def test_a_full_batch_waits_for_nothing() -> None:
    store = Pretended()
    batches = Batches(store, gather_within=60)
    for number in range(LARGEST_BATCH):
        batches.submit(grant(100 + number))
    for _ in range(4):
        await asyncio.sleep(0)
    await began(store)
    store.go.set()
    await batches.close()
    assert store.batches == [LARGEST_BATCH]


async def test_a_batch_begins_although_operations_go_on_arriving() -> None:
    store = Pretended()
    batches = Batches(store, gather_within=0.0)
    waiters = [batches.submit(grant(100)), batches.submit(grant(101))]
    while not store.began.is_set():
        waiters.append(batches.submit(grant(101)))
        await asyncio.sleep(0)
    store.go.set()
    await asyncio.gather(*waiters)
    assert store.batches[0] < LARGEST_BATCH
    await batches.close()


async def test_one_operation_does_not_fail_the_others() -> None:
    store = Pretended()
    store.go.set()
    batches = Batches(store)
    waiters = [batches.submit(grant(amount)) for amount in (1, 13, 2)]
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert outcomes[0] == Granted(balance=1)
    assert isinstance(outcomes[1], RuntimeError)
    assert outcomes[2] == Granted(balance=2)
    assert store.batches == [3, 1, 1, 1]
    await batches.close()


async def test_a_store_that_is_away_is_asked_once_for_all_that_wait() -> None:
    store = Pretended()
    batches = Batches(store)
    waiters = [batches.submit(grant(1))]
    await began(store)
    waiters += [batches.submit(grant(100 + number)) for number in range(1000)]
    store.error = StoreError("away")
    store.go.set()
    for waiter in waiters:
        with pytest.raises(StoreError, match="away"):
            await waiter
    assert store.batches == [1]
    store.error = None
    assert await batches.submit(grant(5)) == Granted(balance=5)
    await batches.close()


async def test_an_operation_is_applied_though_nobody_waits() -> None:
    store = Pretended()
    batches = Batches(store)
    batches.submit(grant(1))
    await began(store)
    batches.submit(grant(2)).cancel()
    store.go.set()
    await batches.close()
    assert store.batches == [1, 1]


async def test_too_many_are_refused_at_once() -> None:
    store = Pretended()
    batches = Batches(store)
    first = batches.submit(grant(1))
    await began(store)
    waiters = [batches.submit(grant(2)) for _ in range(MOST_PENDING)]
    with pytest.raises(StoreError, match="too many"):
        await batches.submit(grant(3))
    store.go.set()
    await asyncio.gather(first, *waiters)
    await batches.close()


async def test_a_store_that_does_not_answer_is_interrupted() -> None:
    store = Pretended()
    batches = Batches(store, answer_within=0.01)
    waiter = batches.submit(grant(1))
    with pytest.raises(StoreError, match="interrupted"):
        await waiter
    await batches.close()


class Remote(Pretended):
    """Returns on the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.silent = False

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        await self._heard()
        return [Granted(balance=1) for _ in operations]

    async def _heard(self) -> None:
        if self.silent:
            await self.answers.wait()
            raise StoreError("interrupted")

    def interrupt(self) -> None:
        self.answers.set()


async def test_a_server_is_waited_for_on_the_event_loop() -> None:
    store = Remote()
    batches = Batches(store)
    assert await batches.submit(grant(1)) == Granted(balance=1)
    await batches.close()


async def test_a_server_that_does_not_answer_is_interrupted() -> None:
    store = Remote()
    store.silent = True
    batches = Batches(store, answer_within=0.01)
    with pytest.raises(StoreError, match="interrupted"):
        await batches.submit(grant(1))
    await batches.close()


class Slow(Remote):
    """Gets responses immediately, and repeats its query until it is interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = 0

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        while not self.answers.is_set():
            await self._heard()
            self.answered += 1
        raise StoreError("interrupted")

    async def _heard(self) -> None:
        await asyncio.sleep(0)


async def test_the_time_is_that_of_a_batch_and_not_of_a_round_trip() -> None:
    store = Slow()
    batches = Batches(store, answer_within=0.01)
    async with asyncio.timeout(10):
        with pytest.raises(StoreError, match="interrupted"):
            await batches.submit(grant(1))
    assert store.answered > 1
    await batches.close()


class Unheard(Remote):
    """Returns while other work blocks the event loop for longer than the time limit."""

    async def _heard(self) -> None:
        loop = asyncio.get_running_loop()
        ours, servers = socket.socketpair()

        def held() -> None:
            time.sleep(0.05)
            servers.send(b"answer")

        with ours, servers:
            ours.setblocking(False)
            loop.call_soon(held)
            await loop.sock_recv(ours, 10)


async def test_an_answer_that_the_loop_was_late_to_hear_is_heard() -> None:
    store = Unheard()
    batches = Batches(store, answer_within=0.01)
    assert await batches.submit(grant(1)) == Granted(balance=1)
    assert not store.answers.is_set()  # it was not interrupted
    await batches.close()


async def test_a_function_of_the_store_has_its_result_or_its_error() -> None:
    batches = Batches(Pretended())
    assert await batches.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await batches.call(divmod, 7, 0)
    await batches.close()


# ------------------------------------------------------------------------------------- queries


async def test_queries_delay_no_transaction_and_are_delayed_by_none() -> None:
    store = Pretended()
    batches = Batches(store)
    gate = threading.Event()
    queries = [asyncio.create_task(batches.read(gate.wait, 10)) for _ in range(100)]
    waiter = batches.submit(grant(1))
    await began(store)
    store.go.set()
    assert await waiter == Granted(balance=1)
    assert not any(query.done() for query in queries)
    store.go.clear()
    waiter = batches.submit(grant(2))
    gate.set()
    assert await asyncio.gather(*queries) == [True] * 100
    assert not waiter.done()
    store.go.set()
    await waiter
    await batches.close()


async def test_a_query_has_its_result_or_its_error() -> None:
    batches = Batches(Pretended())
    assert await batches.read(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await batches.read(divmod, 7, 0)
    await batches.close()


def stuck(store: Pretended) -> Callable[[], None]:
    """Return a query that ends when the store is interrupted."""

    def query() -> None:
        store.began.set()
        assert store.go.wait(10)
        raise StoreError("interrupted")

    return query


async def test_a_query_that_does_not_end_is_interrupted() -> None:
    store = Pretended()
    batches = Batches(store, answer_within=0.01)
    with pytest.raises(StoreError, match="interrupted"):
        await batches.read(stuck(store))
    assert store.interrupted
    await batches.close()


async def test_who_leaves_takes_a_query_back_that_has_not_begun() -> None:
    batches = Batches(Pretended())
    gate = threading.Event()
    running = [asyncio.create_task(batches.read(gate.wait, 10)) for _ in range(2)]
    ran: list[bool] = []
    waiting = asyncio.create_task(batches.read(ran.append, True))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    gate.set()
    await asyncio.gather(*running)
    await batches.close()

    assert ran == []


async def test_closing_waits_for_the_queries_that_run_and_for_no_other() -> None:
    store = Pretended()
    batches = Batches(store, answer_within=0.01)
    running = [asyncio.create_task(batches.read(stuck(store))) for _ in range(2)]
    await began(store)
    ran: list[bool] = []
    waiting = [asyncio.create_task(batches.read(ran.append, True)) for _ in range(100)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await batches.close()
        await asyncio.wait((*running, *waiting))

    assert [type(query.exception()) for query in running] == [StoreError] * 2
    assert all(query.cancelled() for query in waiting)
    assert ran == []


# --------------------------------------------------------------------------------- its own end


async def dies(_: object) -> None:
    raise MemoryError


async def is_cancelled(_: object) -> None:
    raise asyncio.CancelledError


async def test_nobody_waits_for_what_never_began() -> None:
    store = Pretended()
    store.go.set()
    batches = Batches(store)
    waiter = batches.submit(grant(1))
    assert batches._running is not None
    batches._running.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(StoreError, match="has ended"):
            await waiter
        assert await batches.submit(grant(1)) == Granted(balance=1)
        await batches.close()


@pytest.mark.parametrize("ending", [dies, is_cancelled])
async def test_nobody_waits_for_what_has_ended(
    monkeypatch: pytest.MonkeyPatch, ending: Callable[..., Awaitable[Any]]
) -> None:
    store = Pretended()
    store.go.set()
    batches = Batches(store)
    with monkeypatch.context() as broken:
        broken.setattr(batches, "_apply", ending)
        waiters = [batches.submit(grant(number)) for number in range(1, LARGEST_BATCH + 5)]
        running = batches._running
        assert running is not None
        await asyncio.wait((running,))
        assert running.cancelled() or isinstance(running.exception(), MemoryError)
    async with asyncio.timeout(10):
        for waiter in waiters:
            with pytest.raises(StoreError, match="has ended"):
                await waiter
        assert await batches.submit(grant(1)) == Granted(balance=1)
        await batches.close()

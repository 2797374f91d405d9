import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from service import errors
from service.accounts import store_access as access_module
from service.accounts.store_access import Access
from service.ledger.batches import Batches
from service.ledger.store import StoreError


class FakeBatches:
    """Runs functions in a thread, as `Batches` does."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1)

    async def call(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.thread, function)


@pytest.fixture
async def access() -> AsyncIterator[Access]:
    batches = FakeBatches()
    made = Access(cast("Batches", batches))
    yield made
    made.close()
    batches.thread.shutdown()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """The event that a query waits for."""
    event = threading.Event()
    yield event
    event.set()


async def test_who_asks_the_same_shares_the_query(access: Access, gate: threading.Event) -> None:
    asked: list[str] = []

    def query(what: str) -> str:
        asked.append(what)
        gate.wait(10)
        return what

    first = [
        asyncio.create_task(access.share("a", query, "a"))
        for _ in range(access_module.MOST_READING + 1)
    ]
    other = asyncio.create_task(access.share("b", query, "b"))
    await asyncio.sleep(0)
    first[0].cancel()
    gate.set()
    answers = await asyncio.gather(*first, other, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == ["a"] * access_module.MOST_READING + ["b"]
    assert sorted(asked) == ["a", "b"]
    # The query has ended, so the next caller starts a new one.
    assert await access.share("a", query, "again") == "again"


async def test_who_shares_a_query_shares_its_failure(access: Access) -> None:
    def fail() -> None:
        raise StoreError("canary")

    answers = await asyncio.gather(
        *(access.share("a", fail) for _ in range(3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [errors.StoreUnavailable] * 3


async def test_a_failure_of_the_store_is_told_as_ours(access: Access) -> None:
    def fail() -> None:
        raise StoreError("canary")

    for run in (access.read, access.write):
        with pytest.raises(errors.StoreUnavailable) as caught:
            await run(fail)
        assert "canary" not in caught.value.message


async def test_what_is_not_there_is_told_as_it_is(access: Access) -> None:
    def fail() -> None:
        raise errors.AccountNotFound("There is no account 'acme'.")

    for run in (access.read, access.write):
        with pytest.raises(errors.AccountNotFound, match="'acme'"):
            await run(fail)


async def test_a_defect_stays_one(access: Access) -> None:
    with pytest.raises(ZeroDivisionError):
        await access.read(lambda: 1 // 0)


async def test_a_store_that_does_not_answer_is_away(
    access: Access, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "PATIENCE", 0.01)
    for run in (access.read, access.write):
        with pytest.raises(errors.StoreUnavailable):
            await run(gate.wait)


async def test_a_query_takes_room_until_it_ends_also_when_its_caller_left(
    gate: threading.Event,
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Room(threading.BoundedSemaphore):
        def release(self, n: int = 1) -> None:
            super().release(n)
            loop.call_soon_threadsafe(ended.set)

    def query() -> None:
        loop.call_soon_threadsafe(began.set)
        gate.wait()

    access = Access(cast("Batches", None))
    access._room = Room(1)
    caller = asyncio.create_task(access.read(query))
    await began.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    with pytest.raises(errors.Overloaded):
        await access.read(lambda: None)
    gate.set()
    await ended.wait()
    assert await access.read(lambda: 7) == 7
    access.close()

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from service.ledger import coalescing
from service.ledger.coalescing import Coalesced


class Asked:
    """A query that returns when the test releases it, and records its keys."""

    def __init__(self) -> None:
        self.keys: list[list[int]] = []
        self.go = asyncio.Event()
        self._began = asyncio.Event()
        self.fails: Exception | None = None
        self.most_at_a_time = 0
        self._running = 0

    async def began(self) -> None:
        """Wait until it is first called."""
        async with asyncio.timeout(10):
            await self._began.wait()

    async def __call__(self, keys: Sequence[int]) -> Mapping[int, str]:
        self._running += 1
        self.most_at_a_time = max(self.most_at_a_time, self._running)
        self.keys.append([*keys])
        self._began.set()
        try:
            await self.go.wait()
            if self.fails is not None:
                raise self.fails
            return {key: str(key) for key in keys if key > 0}
        finally:
            self._running -= 1


def start(shared: Coalesced[int, str], *keys: int) -> list["asyncio.Task[str | None]"]:
    return [asyncio.create_task(shared.get(key)) for key in keys]


async def test_who_asks_while_a_query_runs_shares_the_next_one() -> None:
    asked = Asked()
    shared = Coalesced(asked)
    first = start(shared, 1, 2, 1)
    await asked.began()
    second = start(shared, *([1, 3, -1] * 50))
    await asyncio.sleep(0)
    asked.go.set()

    assert await asyncio.gather(*first) == ["1", "2", "1"]
    assert await asyncio.gather(*second) == ["1", "3", None] * 50
    assert asked.keys == [[1, 2], [1, 3, -1]]
    assert await shared.get(7) == "7"
    assert asked.keys[2:] == [[7]]
    assert asked.most_at_a_time == 1


async def test_a_query_has_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "MOST_AT_ONCE", 10)
    asked = Asked()
    shared = Coalesced(asked)
    asked.go.set()
    calls = start(shared, *range(1, 26))

    assert await asyncio.gather(*calls) == [str(key) for key in range(1, 26)]
    assert sorted(map(len, asked.keys)) == [5, 10, 10]
    assert asked.most_at_a_time == 1


async def test_who_leaves_does_not_take_the_answer_from_the_others() -> None:
    asked = Asked()
    shared = Coalesced(asked)
    first, *others = start(shared, 1, 1, 2)
    await asked.began()
    first.cancel()
    await asyncio.wait((first,))
    asked.go.set()

    assert first.cancelled()
    assert await asyncio.gather(*others) == ["1", "2"]


async def test_a_failure_is_that_of_all_who_wait_for_it_and_of_nobody_else() -> None:
    asked = Asked()
    asked.fails = OSError("away")
    shared = Coalesced(asked)
    failing = start(shared, 1, 2)
    left, *_ = start(shared, 3)
    await asked.began()
    left.cancel()
    asked.go.set()
    failures = await asyncio.gather(*failing, return_exceptions=True)

    assert failures == [asked.fails] * 2
    asked.fails = None
    assert await shared.get(1) == "1"

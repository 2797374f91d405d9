"""Sets of calls without a key: which call ends when there are too many."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service import errors
from service.probe_bounds import ProbeBound, Yields

Start = Callable[[], asyncio.Task[Any]]


@asynccontextmanager
async def _tasks() -> AsyncIterator[Start]:
    """Yield a function that starts a task which never ends by itself."""
    started: list[asyncio.Task[Any]] = []

    def start() -> asyncio.Task[Any]:
        task = asyncio.create_task(asyncio.Event().wait())
        started.append(task)
        return task

    yield start
    for task in started:
        task.cancel()
    await asyncio.gather(*started, return_exceptions=True)


def _filled(bound: ProbeBound, start: Start, connections: str) -> list[asyncio.Task[Any]]:
    """Add a call for each letter, which names its connection."""
    tasks = []
    for connection in connections:
        tasks.append(start())
        bound.add(tasks[-1], connection)
        bound.check(tasks[-1])
    return tasks


@pytest.mark.parametrize(
    ("yields", "before", "then", "displaced"),
    [
        ("never", "aab", "c", None),
        ("to other connections", "aab", "c", 0),
        ("to other connections", "baa", "c", 1),
        ("to other connections", "abc", "d", 0),
        ("to other connections", "aab", "a", None),
        ("to other connections", "aab", "b", 0),
        ("always", "aab", "a", 0),
        ("always", "baa", "c", 1),
    ],
)
async def test_a_call_too_many(
    yields: Yields, before: str, then: str, displaced: int | None
) -> None:
    async with _tasks() as start:
        bound = ProbeBound(3, yields=yields)
        earlier = _filled(bound, start, before)
        newest = start()
        bound.add(newest, then)
        if displaced is None:
            with pytest.raises(errors.Overloaded):
                bound.check(newest)
            bound.discard(newest)
        else:
            bound.check(newest)
            assert isinstance(bound.why(earlier[displaced]), errors.Overloaded)
        assert [task.cancelling() for task in earlier] == [
            int(number == displaced) for number in range(3)
        ]
        assert len(bound) == 3


async def test_a_connection_has_its_own_bound() -> None:
    async with _tasks() as start:
        bound = ProbeBound(10, most_of_one=2, yields="to other connections")
        first, _ = _filled(bound, start, "aa")
        third = start()
        bound.add(third, "a")
        with pytest.raises(errors.Overloaded):
            bound.check(third)
        bound.discard(third)
        _filled(bound, start, "bb")
        bound.discard(first)
        _filled(bound, start, "a")


async def test_the_end_of_the_server_ends_every_call_and_refuses_more() -> None:
    async with _tasks() as start:
        bound = ProbeBound(10, yields="always")
        (task,) = _filled(bound, start, "a")
        bound.end()
        assert task.cancelling()
        assert isinstance(bound.why(task), errors.Draining)
        late = start()
        bound.add(late, "a")
        with pytest.raises(errors.Draining):
            bound.check(late)


async def test_a_call_that_nobody_displaced_has_no_reason() -> None:
    async with _tasks() as start:
        bound = ProbeBound(10, yields="always")
        (task,) = _filled(bound, start, "a")
        assert bound.why(task) is None
        bound.discard(task)
        bound.discard(task)
        assert len(bound) == 0

import asyncio
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.upstream.bulkhead import Bulkhead, NoPlaceError
from tests.support.examples import examples

LONG = 60.0


async def begin(wait: Awaitable[None]) -> asyncio.Task[None]:
    task = asyncio.ensure_future(wait)
    await asyncio.sleep(0)
    return task


async def test_places_are_taken_until_none_is_free() -> None:
    places = Bulkhead(2, 10)
    assert [places.take() for _ in range(3)] == [True, True, False]
    places.leave()
    assert places.take()
    assert places.running == 2


async def test_a_free_place_goes_to_the_first_who_waits() -> None:
    places = Bulkhead(1, 10)
    assert places.take()
    waiting = [await begin(places.wait(LONG)) for _ in range(3)]
    assert places.waiting == 3
    for index in range(3):
        assert not places.take()
        places.leave()
        await waiting[index]
        assert places.running == 1
        assert not any(task.done() for task in waiting[index + 1 :])


async def test_only_so_many_wait() -> None:
    places = Bulkhead(1, 1)
    assert places.take()
    waiting = await begin(places.wait(LONG))
    assert not places.has_room
    with pytest.raises(NoPlaceError):
        await places.wait(LONG)
    places.leave()
    await waiting


async def test_nobody_waits_for_ever() -> None:
    places = Bulkhead(1, 10)
    assert places.take()
    with pytest.raises(NoPlaceError):
        await places.wait(0.0)
    assert (places.running, places.waiting) == (1, 0)


async def test_a_place_for_one_who_leaves_at_that_moment_goes_on() -> None:
    places = Bulkhead(1, 10)
    assert places.take()
    first, second = [await begin(places.wait(LONG)) for _ in range(2)]
    places.leave()
    first.cancel()
    await asyncio.wait((first,))
    assert first.cancelled()
    await second
    assert (places.running, places.waiting) == (1, 0)


async def test_one_who_left_is_passed_over() -> None:
    places = Bulkhead(1, 10)
    assert places.take()
    first, second = [await begin(places.wait(LONG)) for _ in range(2)]
    first.cancel()
    places.leave()
    await second
    await asyncio.wait((first,))
    assert (places.running, places.waiting) == (1, 0)


async def test_more_places_are_given_at_once() -> None:
    places = Bulkhead(1, 10)
    assert places.take()
    waiting = [await begin(places.wait(LONG)) for _ in range(3)]
    places.resize(3, 10)
    await waiting[0]
    await waiting[1]
    assert (places.running, places.waiting) == (3, 1)
    places.resize(1, 10)
    for _ in range(2):
        places.leave()
    assert (places.running, places.waiting) == (1, 1)
    places.leave()
    await waiting[2]


@examples(200)
@given(
    most=st.integers(1, 4),
    most_waiting=st.integers(0, 4),
    steps=st.lists(st.sampled_from(["come", "leave", "cancel", "run"]), max_size=60),
)
def test_the_bounds_hold_and_everyone_gets_a_place(
    most: int, most_waiting: int, steps: list[str]
) -> None:
    async def play() -> None:
        places = Bulkhead(most, most_waiting)
        waiting: list[asyncio.Task[None]] = []
        held = 0
        for step in steps:
            if step == "come":
                if places.take():
                    held += 1
                elif places.has_room:
                    waiting.append(await begin(places.wait(LONG)))
            elif step == "leave" and held:
                held -= 1
                places.leave()
            elif step == "cancel" and waiting:
                waiting[0].cancel()
            else:
                await asyncio.sleep(0)
            if step != "leave":  # a task that got a place runs at the next turn
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                held += sum(task.done() and not task.cancelled() for task in waiting)
                waiting = [task for task in waiting if not task.done()]
            assert places.running <= most
            assert places.waiting <= most_waiting
        while waiting or held:
            await asyncio.sleep(0)
            held += sum(task.done() and not task.cancelled() for task in waiting)
            waiting = [task for task in waiting if not task.done()]
            if held:
                held -= 1
                places.leave()
            assert not (waiting and not places.running)
        assert (places.running, places.waiting) == (0, 0)

    asyncio.run(play())

import asyncio
import gc

import pytest

from restbridge.http.lazy_event import LazyEvent, LeanFlow


async def test_all_who_wait_are_woken_once() -> None:
    event = LazyEvent()
    waiting = [asyncio.create_task(event.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)

    event.set()
    event.clear()
    assert await asyncio.gather(*waiting) == [True, True]

    late = asyncio.create_task(event.wait())
    await asyncio.sleep(0)
    assert not late.done()
    event.set()
    assert await late


async def test_a_set_event_is_not_waited_for() -> None:
    event = LazyEvent()
    event.set()
    with pytest.raises(StopIteration):
        event.wait().send(None)


async def test_one_who_leaves_takes_nobody_along() -> None:
    event = LazyEvent()
    left, stays = (asyncio.create_task(event.wait()) for _ in range(2))
    await asyncio.sleep(0)
    left.cancel()
    event.set()
    await asyncio.wait((left, stays))
    assert left.cancelled()
    assert stays.result()


async def test_a_flow_is_writable_until_it_is_paused() -> None:
    flow = LeanFlow(asyncio.Transport())
    await flow.drain()
    flow.pause_writing()
    paused = asyncio.create_task(flow.drain())
    await asyncio.sleep(0)
    assert not paused.done()
    flow.resume_writing()
    await paused


def test_an_event_for_which_nobody_waits_has_no_queue() -> None:
    event = LazyEvent()
    event.set()
    event.clear()
    assert not any(isinstance(held, asyncio.Event) for held in gc.get_referents(event))

import asyncio

import pytest

from service.call import Calls
from service.errors import Overloaded
from tests.unit.service.samples import call


async def test_there_may_be_so_many_calls_and_no_more() -> None:
    calls = Calls(2)
    three = [call() for _ in range(3)]
    for one in three[:2]:
        calls.add(one)
        calls.check()
    calls.add(three[2])

    with pytest.raises(Overloaded):
        calls.check()

    calls.discard(three[0])
    calls.check()
    assert len(calls) == 2


async def test_two_calls_that_are_alike_are_two() -> None:
    calls = Calls(5)
    first, second = call(), call()
    calls.add(first)
    calls.add(second)
    calls.discard(first)
    calls.discard(first)

    assert len(calls) == 1


async def test_without_calls_it_is_idle_at_once() -> None:
    await Calls(1).idle()


async def test_it_is_idle_when_the_last_call_ended() -> None:
    calls = Calls(5)
    first, second = call(), call()
    calls.add(first)
    calls.add(second)
    waiting = asyncio.create_task(calls.idle())

    calls.discard(first)
    await asyncio.sleep(0)
    assert not waiting.done()

    calls.discard(second)
    await waiting

    calls.add(first)
    again = asyncio.create_task(calls.idle())
    await asyncio.sleep(0)
    assert not again.done()
    calls.discard(first)
    await again


async def test_cutting_cancels_every_call_and_says_why() -> None:
    calls = Calls(5)
    begun = asyncio.Queue[None]()
    reasons: list[bool] = []

    async def serve() -> None:
        one = call()
        calls.add(one)
        begun.put_nowait(None)
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(one.draining)
            calls.discard(one)

    tasks = [asyncio.create_task(serve()) for _ in range(3)]
    for _ in tasks:
        await begun.get()
    calls.cut()
    await calls.idle()

    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 3
    assert reasons == [True] * 3


async def test_cutting_nothing_is_nothing() -> None:
    Calls(1).cut()

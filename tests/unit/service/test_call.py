import asyncio

import pytest

from service.call import Calls
from service.errors import Draining, Overloaded
from tests.support.samples import call


async def test_there_may_be_so_many_calls_and_no_more() -> None:
    calls = Calls(2)
    three = [call() for _ in range(3)]
    for one in three[:2]:
        calls.add(one)
        await calls.enter()
    calls.add(three[2])

    with pytest.raises(Overloaded):
        await calls.enter()

    calls.discard(three[0])
    await calls.enter()
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


async def test_a_call_that_comes_while_the_listener_closes_is_refused_when_it_is_closed() -> None:
    calls = Calls(5)
    calls.close()
    entering = asyncio.create_task(calls.enter())
    await asyncio.sleep(0)
    assert not entering.done()

    calls.refuse()
    with pytest.raises(Draining):
        await entering
    with pytest.raises(Draining):
        await calls.enter()


async def test_it_is_quiet_when_no_call_has_arrived_for_a_moment() -> None:
    calls = Calls(1)
    quiet = asyncio.create_task(calls.quiet())
    for _ in range(20):
        calls.add(call())
        await asyncio.sleep(0.005)
        assert not quiet.done()

    await quiet


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


async def test_the_messages_in_flight_share_a_bound() -> None:
    calls = Calls(5, most_bytes=10)
    first, second = call(), call()
    for each in (first, second):
        calls.add(each)
    calls.hold_bytes(first, 6)
    with pytest.raises(Overloaded):
        calls.hold_bytes(second, 5)
    calls.hold_bytes(second, 4)
    for _ in range(2):
        calls.end(first)  # again, when its status was sent
    calls.hold_bytes(first, 6)

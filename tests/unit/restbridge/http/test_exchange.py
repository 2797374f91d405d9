import asyncio

import pytest

from restbridge.error_responses import LEFT, of_reason
from restbridge.http.exchange import Departure, Exchange
from tests.unit.restbridge.exchanges import Wire, exchange, turn

DRAINING = of_reason("DRAINING")


async def run(wire: Wire, made: "asyncio.Future[Exchange]") -> str:
    of = exchange(connection=wire)
    made.set_result(of)
    try:
        with Departure(of, wire.receive):
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not of.was_ended():
            raise
        return "ended"
    return "returned"


async def begin(wire: Wire) -> tuple["asyncio.Task[str]", Exchange]:
    made: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run(wire, made))
    return task, await made


async def test_leaving_ends_the_exchange() -> None:
    wire = Wire()
    task, of = await begin(wire)
    wire.leave()
    assert await task == "ended"
    assert of.failure is LEFT
    assert not task.cancelled()
    assert task.cancelling() == 0


async def test_the_first_end_counts() -> None:
    wire = Wire()
    task, of = await begin(wire)
    of.end(DRAINING)
    wire.leave()
    assert await task == "ended"
    assert of.failure is DRAINING


async def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    wire = Wire()
    task, of = await begin(wire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert of.failure is None


async def test_not_even_beside_an_end() -> None:
    wire = Wire()
    task, of = await begin(wire)
    of.end(DRAINING)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_body_that_arrives_late_is_no_departure() -> None:
    wire = Wire({"type": "http.request", "body": b"x", "more_body": True})
    of = exchange(body_is_pending=True, connection=wire)
    with Departure(of, wire.receive):
        await turn()
        assert of.body_is_pending
    assert of.failure is None


async def test_after_the_context_nothing_is_watched() -> None:
    wire = Wire()
    of = exchange(connection=wire)
    with Departure(of, wire.receive):
        await turn()
    wire.leave()
    await turn()
    assert of.failure is None


async def test_nothing_ends_what_is_settled() -> None:
    of = exchange()
    of.settle()
    of.end(DRAINING)
    await turn()
    assert of.failure is None

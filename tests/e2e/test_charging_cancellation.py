"""Callers who cancel at any moment, over gRPC and REST: nothing stays held or is charged twice.

step 0 … n of the event loop -> cancel -> no open hold, correct balances
"""

import asyncio

import pytest

from tests.support.accounts_stack import accounts_stack
from tests.support.asking import DOORS, DoorName
from tests.support.priced_models import CREDIT, cost, priced

CALLS = 90


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("door", DOORS)
async def test_callers_leave_at_any_moment(door: DoorName, streamed: bool) -> None:
    async with accounts_stack({"default": priced()}) as stack:
        team = stack.books.team(concurrency=1, requests_per_minute=10_000)
        left, took = 0, []
        for _ in range(3):
            whole = asyncio.create_task(stack.ask(door, team.key, "default", streamed=streamed))
            took.append(await _steps(whole))
            await stack.rests()
        longest = sorted(took)[1]
        for number in range(CALLS):
            # In smaller steps at the beginning, when most happens.
            most = longest * number * number // (CALLS * CALLS)
            call = asyncio.create_task(stack.ask(door, team.key, "default", streamed=streamed))
            await _steps(call, most)
            left += call.cancel()
            await asyncio.wait((call,))
        # The last call is served, because all others have released their places.
        await stack.rests()
        for _ in range(2):
            answer = await stack.ask(door, team.key, "default", streamed=streamed)
            if answer.code == "":
                break
            assert answer.code == "rate_limit_exceeded"
            await stack.rests()
        assert answer.code == ""
        await stack.rests()

        charges = stack.books.charges(team)
        assert left > 10
        assert all(1 <= charge.completion <= 8 for charge in charges)
        assert all(charge.amount == cost(charge.prompt, charge.completion) for charge in charges)
        spent = sum(charge.amount for charge in charges)
        assert stack.books.balance(team) == CREDIT - spent
        assert len(charges) <= len(stack.upstream.records)
        stack.books.nothing_is_open()


async def _steps(call: "asyncio.Task[object]", most: int = 1_000_000) -> int:
    """Wait until a call is done or a number of steps of the event loop is over. Return them."""
    steps = 0
    while steps < most and not call.done():
        await asyncio.sleep(0)
        steps += 1
    return steps

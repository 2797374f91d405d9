import asyncio
from contextlib import closing
from typing import Any

import pytest

from service.upstream.silence import Silence

LONGEST = 0.5


class Clock:
    """The event loop's clock, which stands still until it is advanced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self._now)

    async def advance(self, seconds: float) -> None:
        """Advance the clock, and run the event loop."""
        self._now += seconds
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_wait_that_lasts_too_long_is_ended(clock: Clock) -> None:
    with closing(Silence(LONGEST)) as silence:
        for _ in range(2):
            with pytest.raises(TimeoutError), silence:
                await clock.advance(LONGEST)
            # It can be used again.
            with silence:
                await clock.advance(LONGEST * 0.9)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_the_maximum_can_change_between_waits(clock: Clock) -> None:
    with closing(Silence(LONGEST * 10)) as silence:
        with silence:
            await clock.advance(LONGEST * 5)
        silence.longest = LONGEST
        assert silence.longest == LONGEST
        with pytest.raises(TimeoutError), silence:
            await clock.advance(LONGEST)


async def test_short_waits_are_not_added_up(clock: Clock) -> None:
    with closing(Silence(LONGEST)) as silence:
        for _ in range(10):
            with silence:
                await clock.advance(LONGEST * 0.9)


async def test_time_between_the_waits_does_not_count(clock: Clock) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    with closing(Silence(LONGEST)) as silence:
        for _ in range(3):
            with silence:
                await clock.advance(LONGEST * 0.9)
            await clock.advance(LONGEST * 3)
    assert failures == []


async def test_all_waits_have_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    made = []
    call_at = loop.call_at

    def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        made.append(call_at(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(loop, "call_at", counted)
    with closing(Silence(LONGEST)) as silence:
        for _ in range(100):
            with silence:
                await asyncio.sleep(0)
    assert len(made) == 1
    assert made[0].cancelled()


async def test_a_cancellation_stays_one(clock: Clock) -> None:
    async def wait() -> None:
        with closing(Silence(LONGEST)) as silence, silence:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await clock.advance(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_that_comes_with_the_end_stays_one(clock: Clock) -> None:
    async def wait() -> None:
        with closing(Silence(LONGEST)) as silence, silence:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task.cancel()
                raise

    task = asyncio.create_task(wait())
    await clock.advance(0.1)
    await clock.advance(LONGEST)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_errors_pass() -> None:
    with closing(Silence(LONGEST)) as silence, pytest.raises(KeyError), silence:
        raise KeyError


async def test_an_outer_timeout_is_the_outer_ones(clock: Clock) -> None:
    async def wait() -> None:
        async with asyncio.timeout(LONGEST / 2):
            with closing(Silence(LONGEST)) as silence, silence:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    ended.append("cancelled")
                    raise

    ended: list[str] = []
    task = asyncio.create_task(wait())
    await clock.advance(0.1)
    await clock.advance(LONGEST / 2)
    with pytest.raises(TimeoutError):
        await task
    assert ended == ["cancelled"]

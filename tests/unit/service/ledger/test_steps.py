"""Work of steps, done by who may block and on an event loop."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from service.ledger.steps import Step, Work, blocking, run, run_async, step


async def by_blocking(wanted: Step[Any]) -> Any:
    await asyncio.sleep(0)
    return wanted.block()


def on_a_loop(work: Work[Any]) -> Any:
    return asyncio.run(run_async(work, by_blocking))


RUNNERS = pytest.mark.parametrize("done", [run, on_a_loop])
Done = Callable[[Work[Any]], Any]


def fails() -> int:
    raise KeyError("step")


@RUNNERS
def test_each_step_has_its_result(done: Done) -> None:
    def work() -> Work[tuple[int, str]]:
        number = yield from blocking(partial(divmod, 17, 5))
        text = yield from blocking(lambda: str(number))
        return number[0], text

    assert done(work()) == (3, "(3, 2)")


@RUNNERS
def test_work_without_steps_is_done_at_once(done: Done) -> None:
    def work() -> Work[int]:
        yield from ()
        return 7

    assert done(work()) == 7


@RUNNERS
def test_the_error_of_a_step_is_raised_in_the_work(done: Done) -> None:
    def work() -> Work[int]:
        try:
            yield from blocking(fails)
        except KeyError:
            return (yield from blocking(lambda: 2))
        return 1

    assert done(work()) == 2


@RUNNERS
def test_an_error_that_the_work_does_not_catch_ends_it(done: Done) -> None:
    released = []

    def work() -> Work[int]:
        try:
            return (yield from blocking(fails))
        finally:
            released.append(True)

    with pytest.raises(KeyError):
        done(work())
    assert released == [True]


@RUNNERS
def test_what_interrupts_a_step_closes_the_work(done: Done) -> None:
    released = []

    def interrupted() -> int:
        raise KeyboardInterrupt

    def work() -> Work[int]:
        try:
            return (yield from blocking(interrupted))
        except Exception:  # noqa: BLE001  (it must not come here)
            return 1
        finally:
            released.append(True)

    with pytest.raises(KeyboardInterrupt):
        done(work())
    assert released == [True]


async def test_who_is_cancelled_closes_the_work() -> None:
    released = asyncio.Event()
    waiting = asyncio.Event()

    async def never() -> None:
        waiting.set()
        await asyncio.Event().wait()

    def work() -> Work[None]:
        try:
            yield from step(Step(fails, never))
        finally:
            released.set()

    async def do(wanted: Step[Any]) -> Any:
        assert wanted.wait is not None
        return await wanted.wait()

    task = asyncio.create_task(run_async(work(), do))
    await waiting.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert released.is_set()

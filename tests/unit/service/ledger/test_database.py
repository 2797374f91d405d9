"""Coroutines that a thread runs by blocking, and an event loop by having a thread block."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest

from service.ledger.database import InThread, blocking, run

_T = TypeVar("_T")


async def on_a_loop(function: Callable[[], _T]) -> _T:
    await asyncio.sleep(0)
    return function()


async def work(in_thread: InThread | None) -> tuple[int, str]:
    quotient, _ = await blocking(partial(divmod, 17, 5), in_thread)
    return quotient, await blocking(partial(str, quotient), in_thread)


async def fails(in_thread: InThread | None, released: list[bool]) -> None:
    try:
        await blocking(partial(divmod, 1, 0), in_thread)
    finally:
        released.append(True)


def test_a_thread_blocks() -> None:
    assert run(work(None)) == (3, "3")


async def test_an_event_loop_has_functions_called() -> None:
    assert await work(on_a_loop) == (3, "3")


@pytest.mark.parametrize("in_thread", [None, on_a_loop], ids=["in a thread", "on a loop"])
def test_the_error_of_a_function_is_raised_in_the_work(
    in_thread: InThread | None,
) -> None:
    released: list[bool] = []
    runner: Callable[..., None] = run if in_thread is None else asyncio.run
    with pytest.raises(ZeroDivisionError):
        runner(fails(in_thread, released))
    assert released == [True]


def test_what_interrupts_a_function_ends_the_work() -> None:
    released: list[bool] = []

    def interrupted() -> int:
        raise KeyboardInterrupt

    async def interruptible() -> int:
        try:
            return await blocking(interrupted, None)
        finally:
            released.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(interruptible())
    assert released == [True]


def test_work_that_waits_for_an_event_loop_is_ended() -> None:
    released: list[bool] = []
    with pytest.raises(RuntimeError, match="event loop"):
        run(waits(on_a_loop, released))
    assert released == [True]


async def waits(call: Callable[[Callable[[], int]], Awaitable[int]], released: list[bool]) -> int:
    try:
        return await call(lambda: 1)
    finally:
        released.append(True)

"""Work that waits, written once for those who may block and for an event loop.

    def work() -> Work[int]:                          run(work())
        lines = yield from blocking(read)                 each step blocks
        …                                             await run_async(work(), do)
        return len(lines)                                 each step is done as `do` does it

What a step raises is raised in the work, where it can be caught as if it were a call's.
"""

from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Step(Generic[_T]):
    """What work cannot go on without."""

    block: Callable[[], _T]
    """Returns it; blocks."""
    wait: Callable[[], Awaitable[_T]] | None = None
    """Returns it on an event loop; None where only a thread can."""


Work = Generator[Step[Any], Any, _T]


def step(wanted: Step[_T]) -> Work[_T]:
    """Have a step done, and return its result."""
    return cast("_T", (yield wanted))


def blocking(function: Callable[[], _T]) -> Work[_T]:
    """Have a function called that blocks, and return its result."""
    return step(Step(function))


def run(work: Work[_T]) -> _T:
    """Do work, and block meanwhile."""
    with closing(work):
        try:
            wanted = next(work)
            while True:
                try:
                    result = wanted.block()
                except Exception as error:  # noqa: BLE001  (it is the work's)
                    wanted = work.throw(error)
                else:
                    wanted = work.send(result)
        except StopIteration as done:
            return cast("_T", done.value)


async def run_async(work: Work[_T], do: Callable[[Step[Any]], Awaitable[Any]]) -> _T:
    """Do work on an event loop.

    Args:
        work: The work. Where this is cancelled, it is closed.
        do: Returns what a step is about.
    """
    with closing(work):
        try:
            wanted = next(work)
            while True:
                try:
                    result = await do(wanted)
                except Exception as error:  # noqa: BLE001  (it is the work's)
                    wanted = work.throw(error)
                else:
                    wanted = work.send(result)
        except StopIteration as done:
            return cast("_T", done.value)

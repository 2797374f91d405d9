"""A time limit for each phase of each test, so that a test that hangs fails.

    async test              cancelled at the limit: its `finally` blocks run
    setup, teardown, and    interrupted by a signal a moment later; it also interrupts an async test
      tests without a loop    whose event loop is stuck
    code in C               ended by pytest's `faulthandler_timeout`, which dumps all stacks

The limit is the option `time_limit`, by default 60 s. On a busy machine, the slowest test with this
limit takes 15 s. If a test needs more time, set its own limit:

    @pytest.mark.time_limit(300)
"""

import asyncio
import functools
import inspect
import signal
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import pytest

_OPTION: Final = "time_limit"
_MARK: Final = "time_limit"
_LATER: Final = 5.0
"""Seconds from the limit to the signal."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the option."""
    parser.addini(_OPTION, "The time limit of each test, in seconds", default="60")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", f"{_MARK}(seconds): the time limit of the test")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limit the time of coroutines from within their event loop."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _within(item.obj, _limit(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Limit the time of the fixtures before a test."""
    with _interrupted(_limit(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Limit the time of a test."""
    with _interrupted(_limit(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Limit the time of the fixtures after a test."""
    with _interrupted(_limit(item)):
        return (yield)


def _limit(item: pytest.Item) -> float:
    mark = item.get_closest_marker(_MARK)
    return float(item.config.getini(_OPTION) if mark is None else mark.args[0])


def _within(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Any]:
    @functools.wraps(test)
    async def limited(*arguments: Any, **fixtures: Any) -> None:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await test(*arguments, **fixtures)
        finally:
            # Also if the tested code turned the cancellation into another exception.
            if limit.expired():
                pytest.fail(_message(seconds))

    return limited


@contextmanager
def _interrupted(seconds: float) -> Iterator[None]:
    """Fail a moment after the limit, which gives the event loop time to cancel its test."""

    def interrupt(_: int, __: FrameType | None) -> None:
        pytest.fail(_message(seconds))

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds + _LATER)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _message(seconds: float) -> str:
    return f"The test took longer than its time limit of {seconds:g} s."

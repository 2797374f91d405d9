"""A time limit for each phase of each test: a hang becomes a failure that names the test.

    async test              cancelled at the limit: its `finally` blocks run
    setup, teardown, and    interrupted by a signal a moment later; it also interrupts an async test
      tests without a loop    whose event loop is stuck
    code in C               ended by pytest's `faulthandler_timeout`, which dumps all stacks

The limit is the option `time_limit`, 60 s unless `-o time_limit=...` says otherwise. The slowest
test without a limit of its own takes 15 s on a busy machine. A test that takes longer for a good
reason has a limit of its own:

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
    """Make the option known."""
    parser.addini(_OPTION, "How long a test may take, in seconds", default="60")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", f"{_MARK}(seconds): how long the test may take")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limit the time of coroutines from inside of their event loop."""
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
            # Also if what is tested made something else of the cancellation.
            if limit.expired():
                pytest.fail(_message(seconds))

    return limited


@contextmanager
def _interrupted(seconds: float) -> Iterator[None]:
    """Fail a moment after so many seconds: an event loop has cancelled its test before."""

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

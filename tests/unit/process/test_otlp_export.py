import logging
from threading import Event

import pytest

from process.otlp_export import LostExports, resource, within


def test_failures_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 30.0, 60.0))
    failures = LostExports("spans", lambda: next(times))
    with caplog.at_level(logging.WARNING):
        for count in (1, 2, 3):
            failures.note(count)

    assert [record.__dict__["chat_fields"]["lost"] for record in caplog.records] == [1, 5]


async def test_a_flush_that_takes_too_long_is_left_behind() -> None:
    ended = Event()
    try:
        await within(lambda: void(ended), 0.01)
    finally:
        ended.set()


def void(ended: Event) -> None:
    ended.wait()


def test_spans_and_metrics_are_of_one_instance() -> None:
    assert resource("ours") is resource("ours")

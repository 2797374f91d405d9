"""Fails tests in which a secret is shown: a plugin of pytest, over the whole suite.

It searches the lines that our code logs in this process; the helpers of the tests search the rest.
See `canaries`.
"""

import logging
from collections.abc import Iterator
from typing import Final

import pytest

from process.log import JsonFormatter
from tests.support import canaries

_OURS: Final = ("service", "restbridge", "process", "chat")


class _Searched(logging.Handler):
    """Searches the lines that our code logs in this process."""

    def emit(self, record: logging.LogRecord) -> None:
        """Search a line."""
        canaries.search(f"a line of {record.name}", self.format(record))


def pytest_configure() -> None:
    """Search what our code logs."""
    handler = _Searched()
    handler.setFormatter(JsonFormatter())
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addHandler(handler)


@pytest.fixture(autouse=True)
def nothing_secret_is_shown() -> Iterator[None]:
    """Fail a test in which a secret was shown."""
    canaries.begin()
    yield
    found = canaries.found()
    assert found == []

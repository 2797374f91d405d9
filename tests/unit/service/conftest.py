import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from process.log import JsonFormatter
from tests.unit.service.books import Books


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that returns the log lines so far, parsed."""
    caplog.set_level(logging.DEBUG, logger="service")
    formatter = JsonFormatter()
    return lambda: [
        json.loads(formatter.format(record))
        for record in caplog.records
        if record.name.startswith("service")
    ]


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    made = Books(tmp_path)
    yield made
    await made.close()

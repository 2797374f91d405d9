"""The outcomes of the tests of the failure catalogue: a plugin that `python -m tests.faults` loads.

FAULT_RESULTS   the file to which the outcomes are appended, one line of JSON for each test
FAULT_ROWS      the names of faults, one per line; other tests are left out

Without the variables, which pass through pytest-xdist to its workers, the plugin does nothing.
"""

import json
import os
from collections.abc import Mapping
from typing import Final

import pytest

from tests.support.fault_catalogue import load

RESULTS: Final = "FAULT_RESULTS"
ROWS: Final = "FAULT_ROWS"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that cause none of the selected faults."""
    names = os.environ.get(ROWS, "")
    if not names:
        return
    chosen = set(names.splitlines())
    faults = [fault for fault in load() if fault.name in chosen]
    left_out = [item for item in items if not any(f.is_test_of(item.nodeid) for f in faults)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Append the outcome of a phase of a test, unless it only passed its setup or teardown."""
    file = os.environ.get(RESULTS, "")
    if not file or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if report.when == "call" or report.outcome != "passed":
        line: Mapping[str, object] = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "seconds": report.duration,
        }
        with open(file, "a", encoding="utf-8") as opened:
            print(json.dumps(line), file=opened)

"""Client libraries for Python."""

import pytest

from tests.clients.programs import PYTHON
from tests.clients.scenarios import Told, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("told", PYTHON, indirect=True, ids=[client.name for client in PYTHON])
def test_python(told: Told, scenario: str) -> None:
    judge(scenario, told)

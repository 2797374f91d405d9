"""Client libraries for Python."""

import pytest

from tests.clients.programs import PYTHON
from tests.clients.scenarios import ClientRun, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize(
    "client_run", PYTHON, indirect=True, ids=[client.name for client in PYTHON]
)
def test_python(client_run: ClientRun, scenario: str) -> None:
    judge(scenario, client_run)

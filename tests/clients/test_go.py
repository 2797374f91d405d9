"""Client libraries for Go."""

import pytest

from tests.clients.programs import GO
from tests.clients.scenarios import ClientRun, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("client_run", GO, indirect=True, ids=[c.name for c in GO])
def test_go(client_run: ClientRun, scenario: str) -> None:
    judge(scenario, client_run)

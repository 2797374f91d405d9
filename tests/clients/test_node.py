"""Client libraries for Node."""

import pytest

from tests.clients.programs import NODE
from tests.clients.scenarios import ClientRun, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("client_run", NODE, indirect=True, ids=[c.name for c in NODE])
def test_node(client_run: ClientRun, scenario: str) -> None:
    judge(scenario, client_run)

"""Client libraries for Node."""

import pytest

from tests.clients.programs import NODE
from tests.clients.scenarios import Told, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("told", NODE, indirect=True, ids=[client.name for client in NODE])
def test_node(told: Told, scenario: str) -> None:
    judge(scenario, told)

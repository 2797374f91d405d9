"""Client libraries for Go."""

import pytest

from tests.clients.programs import GO
from tests.clients.scenarios import Told, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("told", GO, indirect=True, ids=[client.name for client in GO])
def test_go(told: Told, scenario: str) -> None:
    judge(scenario, told)

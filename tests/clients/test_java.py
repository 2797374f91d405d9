"""Client libraries for Java."""

import pytest

from tests.clients.programs import JAVA
from tests.clients.scenarios import Told, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("told", JAVA, indirect=True, ids=[client.name for client in JAVA])
def test_java(told: Told, scenario: str) -> None:
    judge(scenario, told)

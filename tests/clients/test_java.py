"""Client libraries for Java."""

import pytest

from tests.clients.programs import JAVA
from tests.clients.scenarios import ClientRun, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("client_run", JAVA, indirect=True, ids=[c.name for c in JAVA])
def test_java(client_run: ClientRun, scenario: str) -> None:
    judge(scenario, client_run)

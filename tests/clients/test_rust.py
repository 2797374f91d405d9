"""Client libraries for Rust."""

import pytest

from tests.clients.programs import RUST
from tests.clients.scenarios import Told, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("told", RUST, indirect=True, ids=[client.name for client in RUST])
def test_rust(told: Told, scenario: str) -> None:
    judge(scenario, told)

"""Client libraries for Rust."""

import pytest

from tests.clients.programs import RUST
from tests.clients.scenarios import ClientRun, judge

pytestmark = pytest.mark.time_limit(180)


@pytest.mark.parametrize("client_run", RUST, indirect=True, ids=[c.name for c in RUST])
def test_rust(client_run: ClientRun, scenario: str) -> None:
    judge(scenario, client_run)

"""The fixtures of the client libraries.

client_run    the result of a program, which runs once for its module
scenario      each scenario
"""

import asyncio

import pytest

from tests.clients.scenarios import SCENARIOS, Client, ClientRun, run


@pytest.fixture(scope="module")
def client_run(request: pytest.FixtureRequest) -> ClientRun:
    """Run the program of the library that the test is for."""
    client: Client = request.param
    return asyncio.run(run(client))


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> str:
    """Return each scenario."""
    name: str = request.param
    return name

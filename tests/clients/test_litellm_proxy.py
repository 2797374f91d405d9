"""LiteLLM's proxy between the service and the simulator, with the same scenarios as without it.

The clients are LiteLLM itself, and OpenAI's SDK for Java, whose accumulator rejects a chunk with
usage and choices, as LiteLLM's proxy sends it.
"""

import asyncio
from dataclasses import replace
from typing import Final

import pytest

from tests.clients.programs import LITELLM, OPENAI_JAVA
from tests.clients.scenarios import Client, ClientRun, judge, require, run
from tests.clients.servers import LITELLM_PROXY, litellm_proxy

pytestmark = pytest.mark.time_limit(300)

# The proxy answers a failure before the first token with a status, not with an event.
CLIENTS: Final = (
    replace(LITELLM, broken=(*LITELLM.broken, "BadGatewayError")),
    replace(OPENAI_JAVA, broken=(*OPENAI_JAVA.broken, "InternalServerException")),
)


@pytest.fixture(scope="module")
def client_run(request: pytest.FixtureRequest) -> ClientRun:
    """Run the program of a library against a stack with the proxy."""
    client: Client = request.param
    require(LITELLM_PROXY)
    return asyncio.run(run(client, litellm_proxy))


@pytest.mark.parametrize("client_run", CLIENTS, indirect=True, ids=[c.name for c in CLIENTS])
def test_litellm_proxy(client_run: ClientRun, scenario: str) -> None:
    if scenario == "broken-end":
        # LiteLLM's proxy adds a finish_reason and [DONE] to a stream that has neither.
        assert client_run.lines[scenario]["text"] == "This is the built"
    else:
        judge(scenario, client_run)

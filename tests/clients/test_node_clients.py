"""Client libraries for Node: Vercel's AI SDK, with both of its providers."""

from typing import Final

import pytest

from tests.clients.scenarios import HERE, NAMELESS, Client, Told, judge

pytestmark = pytest.mark.time_limit(180)


def node(provider: str) -> Client:
    """Return the client of the AI SDK with a provider."""
    return Client(
        name=f"ai-sdk-{provider}",
        command=("node", str(HERE / "node" / "ai_sdk.mjs"), provider),
        needs=(HERE / "node" / "node_modules" / ".stamp",),
        refused="AI_APICallError",
        broken=("AI_APICallError",),
        fails=NAMELESS,
    )


CLIENTS: Final = (node("openai-compatible"), node("openai"))


@pytest.mark.parametrize("told", CLIENTS, indirect=True, ids=[c.name for c in CLIENTS])
def test_node(told: Told, scenario: str) -> None:
    judge(scenario, told)

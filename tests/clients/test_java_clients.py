"""Client libraries for Java: OpenAI's SDK, and langchain4j in two versions.

langchain4j reads an error event as an empty chunk, so only the end of the connection shows that a
response is incomplete.
"""

from typing import Any, Final

import pytest

from tests.clients.scenarios import HERE, NAMELESS, Client, Told, judge

pytestmark = pytest.mark.time_limit(180)

TARGET: Final = HERE / "java" / "target"
LATEST: Final = "1.19.0"
"""The versions of langchain4j, as in the Makefile."""
EARLIER: Final = "1.8.0"


def java(program: str, version: str, **members: Any) -> Client:
    """Return the client of a program, with a version of langchain4j beside it."""
    packages = TARGET / version
    return Client(
        name=f"{program}-{version}",
        command=("java", "-cp", f"{TARGET / 'classes'}:{packages}/*", program),
        needs=(TARGET / ".stamp", packages),
        **members,
    )


LANGCHAIN4J: Final = {
    "refused": "InvalidRequestException",
    "broken": ("LangChain4jException",),
}
CLIENTS: Final = (
    java(
        "OpenAiJava",
        LATEST,
        refused="UnprocessableEntityException",
        broken=("SseException",),
        fails=NAMELESS,
    ),
    java("LangChain4j", LATEST, **LANGCHAIN4J),
    java("LangChain4j", EARLIER, **LANGCHAIN4J),
)


@pytest.mark.parametrize("told", CLIENTS, indirect=True, ids=[c.name for c in CLIENTS])
def test_java(told: Told, scenario: str) -> None:
    judge(scenario, told)

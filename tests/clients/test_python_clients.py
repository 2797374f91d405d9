"""Client libraries in Python, each from a lock file of its own environment."""

from typing import Any, Final

import pytest

from tests.clients.scenarios import HERE, NAMELESS, Client, Told, judge
from tests.support.tree import ROOT

EMPTY_CONTENT: Final = {"tools": "an assistant message with tool calls and content [] is refused"}


def python(name: str, environment: str, **members: Any) -> Client:
    """Return the client of a program in `python/`, with an environment of the Makefile."""
    interpreter = ROOT / ".venv-clients" / environment / "bin" / "python"
    usual = {"refused": "UnprocessableEntityError", "broken": ("APIError",)}
    return Client(
        name=name,
        command=(str(interpreter), "-B", str(HERE / "python" / f"{name}_client.py")),
        needs=(interpreter,),
        variables={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        **{**usual, **members},
    )


CLIENTS: Final = (
    python("langchain", "frameworks", fails=NAMELESS),
    python("openai_agents", "frameworks", fails=NAMELESS),
    python(
        "pydantic_ai",
        "frameworks",
        refused="ModelRequestRejectedError",
        broken=("ModelServerError",),
    ),
    python("llamaindex", "llamaindex"),
    python("instructor", "litellm", refused="InstructorRetryException", fails=EMPTY_CONTENT),
    python(
        "litellm",
        "litellm",
        refused="BadRequestError",
        broken=("MidStreamFallbackError",),
        fails=NAMELESS,
    ),
)


@pytest.mark.parametrize("told", CLIENTS, indirect=True, ids=[c.name for c in CLIENTS])
def test_python(told: Told, scenario: str) -> None:
    judge(scenario, told)

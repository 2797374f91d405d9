"""Client libraries for Go: OpenAI's SDK and go-openai."""

from typing import Any, Final

import pytest

from tests.clients.scenarios import HERE, NAMELESS, Client, Told, judge

pytestmark = pytest.mark.time_limit(180)


def go(name: str, **members: Any) -> Client:
    """Return the client of a program that `make test-clients` builds."""
    program = HERE / "go" / "bin" / name
    return Client(name=name, command=(str(program),), needs=(program,), fails=NAMELESS, **members)


CLIENTS: Final = (
    go("openai", refused="*apierror.Error", broken=("*ssestream.StreamError",)),
    go("go_openai", refused="*openai.APIError", broken=("*fmt.wrapError", "*json.SyntaxError")),
)


@pytest.mark.parametrize("told", CLIENTS, indirect=True, ids=[c.name for c in CLIENTS])
def test_go(told: Told, scenario: str) -> None:
    judge(scenario, told)

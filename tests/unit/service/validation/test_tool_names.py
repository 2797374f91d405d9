from typing import Any, Final

import pytest

from service.validation.tool_names import LONGEST, unaccepted
from tests.support.samples import model, params

OPENAI: Final = model(tool_names="openai")
ANY: Final = model()

PLAIN: Final = ("f", "get_weather", "A-z_0" + "9" * 59)
OTHER: Final = (
    "github.create_issue",
    "github.com/owner/repo",
    "mcp:search",
    "x" * 65,
    "a b",
    "é",
    "x" * LONGEST,
)


def tools(*names: str) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": name}} for name in names]}


@pytest.mark.parametrize("name", PLAIN)
def test_every_model_accepts_a_plain_name(name: str) -> None:
    for members in (tools(name), {"functions": [{"name": name}]}):
        assert unaccepted(params(**members), OPENAI) == []
        assert unaccepted(params(**members), ANY) == []


@pytest.mark.parametrize("name", OTHER)
def test_the_model_decides_about_any_other_name(name: str) -> None:
    for members, path in (
        (tools("f", name), "tools[1].function.name"),
        ({"functions": [{"name": name}]}, "functions[0].name"),
    ):
        assert unaccepted(params(**members), ANY) == []
        assert [v.param for v in unaccepted(params(**members), OPENAI)] == [path]


@pytest.mark.parametrize("name", ["x" * (LONGEST + 1), "a\n", "a\x00"])
def test_no_model_accepts_a_name_that_is_too_long_or_not_printable(name: str) -> None:
    assert [v.param for v in unaccepted(params(**tools(name)), ANY)] == ["tools[0].function.name"]


def test_tools_of_other_types_and_requests_without_tools_have_no_names() -> None:
    assert unaccepted(params(), OPENAI) == []
    assert unaccepted(params(tools=[{"type": "custom", "custom": {"name": "a.b"}}]), OPENAI) == []

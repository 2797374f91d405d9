from typing import Any

import pytest

from service import validation
from tests.unit.service.samples import model, params

VALUE = "invalid_value"
WEATHER = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize(
    ("refused", "members", "told"),
    [
        ([], {"service_tier": "priority", "x": 1}, []),
        (["service_tier"], {}, []),
        (["service_tier"], {"service_tier": None}, []),
        (["service_tier"], {"service_tier": "priority"}, ["service_tier"]),
        (["service_tier"], {"serviceTier": "priority"}, ["service_tier"]),
        (["x"], {"X": 1}, ["x"]),
        (["x"], {"x": None, "y": 1}, []),
        (["x", "b", "a"], {"x": 0, "a": False}, ["a", "x"]),
        # Members that several fields say, or that are arrays and maps.
        (["stop"], {"stop": "x"}, ["stop"]),
        (["stop"], {"stop": ["x"]}, ["stop"]),
        (["tool_choice"], {"tool_choice": "none"}, ["tool_choice"]),
        (["tools"], {"tools": [WEATHER]}, ["tools"]),
        (["logit_bias"], {"logit_bias": {"1": 1}}, ["logit_bias"]),
        (["max_tokens"], {"max_completion_tokens": 1}, []),
        (["seed"], {"seed": 0}, ["seed"]),
        (['"x'], {'"x': 1}, ['"x']),
    ],
)
def test_an_operator_refuses_members_by_their_names(
    refused: list[str], members: dict[str, Any], told: list[str]
) -> None:
    violations = validation.refused(params(**members), model(refused_members=frozenset(refused)))

    assert [(violation.param, violation.code) for violation in violations] == [
        (name, VALUE) for name in told
    ]

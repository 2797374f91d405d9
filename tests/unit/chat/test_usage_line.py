from decimal import Decimal
from typing import Any

import pytest

from chat.usage_line import cost_of, pricing_of, usage_line

USAGE = {"prompt_tokens": 12, "completion_tokens": 100}
PRICES = {"prompt": "0.0000005", "completion": "0.000002"}


@pytest.mark.parametrize(
    ("usage", "finish", "cost", "line"),
    [
        (USAGE, "stop", None, "12 + 100 tokens"),
        (USAGE, "stop", Decimal("0.000206"), "12 + 100 tokens · 0.000206 credits"),
        (USAGE, "", Decimal("0.123456789"), "12 + 100 tokens · 0.123457 credits"),
        (USAGE, "stop", Decimal("1E+3"), "12 + 100 tokens · 1000 credits"),
        (USAGE, "length", None, "12 + 100 tokens · cut off at the maximum length"),
        (None, "tool_calls", None, "ended with tool_calls"),
        (None, "stop", None, ""),
    ],
)
def test_the_line(usage: Any, finish: str, cost: Decimal | None, line: str) -> None:
    assert usage_line(usage, finish, cost) == line


@pytest.mark.parametrize(
    ("usage", "pricing", "cost"),
    [
        (USAGE, PRICES, Decimal("0.000206")),
        ({**USAGE, "cost": Decimal("0.5")}, PRICES, Decimal("0.5")),
        ({**USAGE, "cost": 0}, PRICES, Decimal(0)),
        ({**USAGE, "cost": "free"}, PRICES, None),
        ({**USAGE, "cost": Decimal("1E+999999")}, PRICES, None),
        ({**USAGE, "cost": "NaN"}, PRICES, None),
        (USAGE, None, None),
        (USAGE, {"prompt": "1"}, None),
        ({"prompt_tokens": True, "completion_tokens": 1}, PRICES, None),
        (None, PRICES, None),
    ],
)
def test_the_cost_is_the_reported_one_or_that_of_the_prices(
    usage: Any, pricing: Any, cost: Decimal | None
) -> None:
    assert cost_of(usage, pricing) == cost


def test_the_prices_are_those_of_the_name_or_of_the_longest_pattern() -> None:
    models = [{"id": name, "pricing": name} for name in ("org/*", "org/a*", "*", "org/ab")]

    assert pricing_of(models, "org/ab") == "org/ab"
    assert pricing_of(models, "org/abc") == "org/a*"
    assert pricing_of(models, "other") == "*"
    assert pricing_of(models[:1], "other") is None

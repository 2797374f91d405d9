import tomllib
from decimal import Decimal
from typing import Any

import pytest

from service.models import NO_SPECIAL_PRICES, Model
from service.models_document import CatalogueError, catalogue

HEAD = """
[upstreams.main]
base_url = "https://api.example"
[models.m]
upstream = "main"
upstream_model = "m"
default_output_tokens = 10
maximum_output_tokens = 20
"""
NANO = 10**9
DAY = 24 * 3600 * NANO


def read(text: str) -> Model:
    document: Any = tomllib.loads(HEAD + text, parse_float=Decimal)
    [model] = catalogue(document, {})
    return model


CHANGES = """
input_price = 1
output_price = 2
cached_input_price = 0.25
prices_from = 1970-01-02T00:00:00Z
[[models.m.price_changes]]
prices_from = 1970-01-03T01:00:00+01:00
input_price = 3
[[models.m.price_changes]]
prices_from = 1970-01-04T00:00:00Z
cached_input_price = 0
request_price = 0.5
"""


def test_special_prices_are_absent_by_default() -> None:
    model = read("input_price = 1")

    assert model.special is NO_SPECIAL_PRICES
    assert (model.prices_from, model.price_changes) == (None, ())
    assert model.at(10**30) is model


def test_prices_hold_from_their_time_and_keep_what_does_not_change() -> None:
    model = read(CHANGES)

    assert model.at(2 * DAY - 1) is model
    assert model.prices_from == DAY
    second, third = model.at(2 * DAY), model.at(10**30)
    assert (second.prices_from, third.prices_from) == (2 * DAY, 3 * DAY)
    assert (second.input_price, second.output_price) == (3 * NANO, 2 * NANO)
    assert (second.special.cached_input, second.special.request) == (NANO // 4, 0)
    assert (third.input_price, third.special.cached_input) == (3 * NANO, 0)
    assert third.special.request == NANO // 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CHANGES.replace("01-04", "01-03"), "each prices_from must be later than the one before"),
        (CHANGES.replace("01-04T00:00:00Z", "01-03T00:00:00Z"), "must be later"),
        ("[[models.m.price_changes]]\ninput_price = 1", "prices_from is missing"),
        ("prices_from = 2026-12-01", "date and time with its offset"),
        ("prices_from = 2026-12-01T00:00:00", "date and time with its offset"),
        ("prices_from = 1969-12-01T00:00:00Z", "date and time with its offset"),
        ("reasoning_price = -1", "credits per million tokens"),
        ("request_price = 1e-10", "credits per request"),
        ("price_changes = 3", "an array of tables"),
        (
            "[[models.m.price_changes]]\nprices_from = 2026-12-01T00:00:00Z\nmargin = 1",
            "margin is unknown",
        ),
    ],
)
def test_a_wrong_price_is_named(text: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("", True),
        ("cached_input_price = 0", True),
        ("reasoning_price = 1", False),
        ("request_price = 0.1", False),
        (
            "[[models.m.price_changes]]\nprices_from = 2026-12-01T00:00:00Z\noutput_price = 1",
            False,
        ),
    ],
)
def test_a_model_with_any_price_now_or_later_is_not_free(text: str, free: bool) -> None:
    assert read(text).is_free is free


def test_the_list_of_models_shows_the_prices_that_are_set() -> None:
    third = read("margin = 10\n" + CHANGES).at(10**30).message().pricing

    assert (third.prompt, third.completion) == ("0.0000033", "0.0000022")
    assert (third.input_cache_read, third.request) == ("0", "0.55")
    assert third.effective_from == 3 * 24 * 3600
    assert not third.HasField("internal_reasoning")


def test_a_model_with_a_price_needs_a_default_limit() -> None:
    text = HEAD.replace("default_output_tokens = 10\n", "") + CHANGES
    document: Any = tomllib.loads(text, parse_float=Decimal)
    with pytest.raises(CatalogueError, match="a model with a price needs it"):
        catalogue(document, {})

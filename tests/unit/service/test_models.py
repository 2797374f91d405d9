from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType

import pytest

from chatcompletion import openai_json
from service.models import NANO, Catalogue, CurrentModels
from tests.support.samples import MODEL

CATALOGUE = Catalogue(
    models=MappingProxyType(
        {
            name: replace(MODEL, name=name, upstream_model=at)
            for name, at in (
                ("default", "gemma"),
                ("local/*", "*"),
                ("local/big/*", "big/*"),
                ("local/own", "special"),
                ("full/*", "full/*"),
            )
        }
    )
)


@pytest.mark.parametrize(
    ("name", "upstream_model", "entry"),
    [
        ("default", "gemma", "default"),
        ("local/llama3.1:8b", "llama3.1:8b", "local/*"),
        ("local/own", "special", "local/own"),
        ("local/big/x", "big/x", "local/big/*"),
        ("full/org/x", "full/org/x", "full/*"),
    ],
)
def test_a_name_of_its_own_comes_before_the_longest_pattern(
    name: str, upstream_model: str, entry: str
) -> None:
    model = CATALOGUE.get(name)

    assert model is not None
    assert (model.name, model.upstream_model, model.entry) == (name, upstream_model, entry)


@pytest.mark.parametrize("name", ["other", "local/", "local/*", "full/*", "local/x*", ""])
def test_what_matches_nothing_is_no_model(name: str) -> None:
    assert CATALOGUE.get(name) is None


@pytest.mark.parametrize(
    ("allowed", "listed"),
    [
        (None, ["default", "local/*", "local/big/*", "local/own", "full/*"]),
        ({"default", "nothing"}, ["default"]),
        ({"local/*"}, ["local/*", "local/big/*", "local/own"]),
        ({"local/a", "local/big/b", "local/own"}, ["local/a", "local/big/b", "local/own"]),
        ({"*"}, ["default", "local/*", "local/big/*", "local/own", "full/*"]),
    ],
)
def test_a_key_sees_what_it_can_use(allowed: set[str] | None, listed: list[str]) -> None:
    assert [model.name for model in CATALOGUE.listed(allowed)] == listed


def test_the_models_are_replaced_all_at_once() -> None:
    models = CurrentModels(CATALOGUE)
    before = models.get("default")
    models.catalogue = Catalogue(models=MappingProxyType({"new": MODEL}))

    assert before is not None
    assert models.get("default") is None
    assert [model.name for model in models.listed(None)] == [MODEL.name]


def test_a_model_shows_its_limits_and_its_prices_per_token() -> None:
    model = replace(
        MODEL,
        input_price=50_000_000,
        output_price=int(Decimal("0.1") * NANO),
        margin=20 * NANO,
        context_length=8192,
    )
    document = openai_json.encode_model(model.message())

    assert b'"context_length":8192' in document
    assert f'"max_output_tokens":{MODEL.maximum_output_tokens}'.encode() in document
    assert b'"pricing":{"prompt":"0.00000006","completion":"0.00000012"}' in document


def test_what_is_not_known_is_absent() -> None:
    document = openai_json.encode_model(replace(MODEL, input_price=0, output_price=0).message())

    assert b"context_length" not in document
    assert b'"pricing":{"prompt":"0","completion":"0"}' in document

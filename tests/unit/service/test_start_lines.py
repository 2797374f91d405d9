from decimal import Decimal
from types import MappingProxyType

from service.models import Catalogue
from service.models_document import catalogue
from service.start_lines import start_lines

ENTRY = {
    "upstream": "local",
    "upstream_model": "llama3.1:8b",
    "default_output_tokens": 10,
    "maximum_output_tokens": 20,
}
KEY = "sk-canary"


def models(**members: object) -> Catalogue:
    upstreams = {
        "local": {"base_url": "http://127.0.0.1:11434"},
        "far": {"base_url": "https://h/v1", "api_key_variable": "A_KEY"},
        "played": {"simulator": True},
    }
    document = {"upstreams": upstreams, "models": {"default": {**ENTRY, **members}}}
    return catalogue(document, {"A_KEY": KEY})


def test_a_line_has_what_an_operator_checks() -> None:
    assert start_lines(models()) == [
        "default -> llama3.1:8b at http://127.0.0.1:11434/v1, key none, price 0"
    ]
    priced = models(
        upstream="far", input_price=Decimal("0.05"), output_price=Decimal("0.10"), margin=20
    )
    assert start_lines(priced) == [
        "default -> llama3.1:8b at https://h/v1, key set, "
        "price 0.06 input, 0.12 output per million tokens"
    ]
    assert start_lines(models(upstream="played", output_price=100)) == [
        "default -> llama3.1:8b at the built-in simulator, key none, "
        "price 0 input, 100 output per million tokens"
    ]


def test_the_lines_are_bounded() -> None:
    [model] = models()
    many = Catalogue(models=MappingProxyType({str(number): model for number in range(23)}))

    lines = start_lines(many)
    assert len(lines) == 21
    assert lines[-1] == "and 3 more models"


def test_a_model_with_several_upstreams_has_a_line_for_each() -> None:
    upstreams = {
        "local": {"base_url": "http://127.0.0.1:11434"},
        "far": {"base_url": "https://h/v1", "api_key_variables": ["A_KEY", "B_KEY"]},
    }
    entry = {name: value for name, value in ENTRY.items() if name != "upstream"}
    ways = [{"upstream": "far", "weight": 3}, {"upstream": "local", "order": 1}]
    document = {"upstreams": upstreams, "models": {"default": {**entry, "upstreams": ways}}}
    assert start_lines(catalogue(document, {"A_KEY": KEY, "B_KEY": KEY + "2"})) == [
        "default -> llama3.1:8b at https://h/v1, 2 keys, order 0, weight 3, price 0",
        "default -> llama3.1:8b at http://127.0.0.1:11434/v1, key none, order 1, weight 1, price 0",
    ]

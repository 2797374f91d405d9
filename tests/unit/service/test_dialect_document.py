from decimal import Decimal
from typing import Any

import pytest

from service.models_document import CatalogueError, catalogue
from service.upstream_dialect import KEEPALIVE, OPENAI, Dialect
from tests.support.samples import UPSTREAM_KEY

ENVIRONMENT = {"SECRET": UPSTREAM_KEY, "BAD": "a\nb"}


def read(upstream: dict[str, Any], model: dict[str, Any] | None = None) -> Dialect:
    document = {
        "upstreams": {"u": {"base_url": "http://a.example/v1", **upstream}},
        "models": {
            "m": {
                "upstream": "u",
                "upstream_model": "x",
                "default_output_tokens": 1,
                "maximum_output_tokens": 1,
                **(model or {}),
            }
        },
    }
    (found,) = catalogue(document, ENVIRONMENT)
    return found.dialect


def test_the_defaults_suit_most() -> None:
    assert read({}) == OPENAI == Dialect()
    assert KEEPALIVE < 2  # gunicorn's


@pytest.mark.parametrize(
    ("member", "value", "attribute", "found"),
    [
        ("stream_end", "strict", "stream_end", "strict"),
        ("stream_options", "never", "stream_options", "never"),
        ("keepalive", 0, "keepalive", 0.0),
        ("keepalive", Decimal("59.5"), "keepalive", 59.5),
        ("first_byte_timeout", 900, "first_byte_timeout", 900.0),
        ("idle_timeout", Decimal("0.05"), "idle_timeout", 0.05),
        ("finish_reasons", {"eos": "stop"}, "finish_reasons", {"eos": "stop"}),
        ("hide_cost", False, "hides_cost", False),
        ("headers", {"X-A": "b"}, "headers", ((b"x-a", b"b"),)),
        (
            "header_variables",
            {"api-key": "SECRET"},
            "headers",
            ((b"api-key", UPSTREAM_KEY.encode()),),
        ),
        ("query", {"api-version": "2024", "a b": "&"}, "query", "api-version=2024&a+b=%26"),
    ],
)
def test_a_member_is_of_an_upstream_or_of_a_model(
    member: str, value: Any, attribute: str, found: Any
) -> None:
    assert getattr(read({member: value}), attribute) == found
    assert getattr(read({}, {member: value}), attribute) == found


def test_a_model_overrides_its_upstream_and_adds_headers() -> None:
    dialect = read(
        {"keepalive": 5, "idle_timeout": 7, "headers": {"a": "1", "b": "2"}},
        {"keepalive": 9, "headers": {"B": "3"}, "header_variables": {"c": "SECRET"}},
    )

    assert (dialect.keepalive, dialect.idle_timeout) == (9.0, 7.0)
    assert dict(dialect.headers) == {b"a": b"1", b"b": b"3", b"c": UPSTREAM_KEY.encode()}
    assert dialect.secrets == (UPSTREAM_KEY,)
    assert UPSTREAM_KEY not in repr(dialect)


NO_NUMBERS: list[Any] = [-1, 3601, "1", True, Decimal("NaN")]
NO_CLOCKS: list[Any] = [0, Decimal("0.04"), 3601, "60"]
NO_TEXTS: list[Any] = [[], "a=b", {"": "stop"}, {"a": 1}, {"a": ""}]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("stream_end", value) for value in ("", "Strict", None)),
        *(("stream_options", value) for value in ("always", True)),
        *(("keepalive", value) for value in NO_NUMBERS),
        *(("first_byte_timeout", value) for value in NO_CLOCKS),
        *(("idle_timeout", value) for value in NO_CLOCKS),
        *(("finish_reasons", value) for value in NO_TEXTS),
        ("hide_cost", 1),
        *(
            ("headers", value)
            for value in ({"a b": "c"}, {"a": "b\n"}, {"a": "é"}, {"Host": "h"}, {"": "a"})
        ),
        ("headers", {"content-length": "1"}),
        ("headers", {f"h{number}": "a" for number in range(33)}),
        *(("query", value) for value in NO_TEXTS),
    ],
)
def test_a_wrong_member_is_named(member: str, value: Any) -> None:
    for tables, place in (({}, {member: value}), ({member: value}, {})):
        with pytest.raises(CatalogueError, match=member):
            read(tables, place)


@pytest.mark.parametrize(
    ("variable", "text"), [("MISSING", "MISSING is not set"), ("BAD", "BAD cannot be the value")]
)
def test_a_secret_must_be_set(variable: str, text: str) -> None:
    with pytest.raises(CatalogueError, match=text):
        read({"header_variables": {"api-key": variable}})

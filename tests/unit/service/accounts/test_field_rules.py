from collections.abc import Callable
from typing import Any

import pytest

from service.accounts import field_rules
from service.accounts.field_rules import FieldRule

# The rule, a function that returns a value of a size, and the smallest and largest allowed sizes.
SIZES: dict[str, tuple[FieldRule, Callable[[int], Any], int, int]] = {
    "name": (field_rules.NAME, lambda size: "x" * size, 1, 128),
    "idempotency id": (field_rules.IDEMPOTENCY_ID, lambda size: "x" * size, 1, 128),
    "model": (field_rules.MODEL, lambda size: "x" * size, 1, 256),
    "models": (field_rules.MODELS, lambda size: [str(number) for number in range(size)], 1, 100),
    "name of a model": (field_rules.MODELS, lambda size: ["x" * size], 1, 256),
    "limit": (field_rules.LIMIT, int, 1, 1_000_000_000),
    "amount": (field_rules.AMOUNT, int, 1, 1_000_000_000_000_000_000),
    "page size": (field_rules.PAGE_SIZE, int, 0, 2**31 - 1),
}


@pytest.mark.parametrize(("rule", "make", "least", "most"), SIZES.values(), ids=SIZES)
def test_a_size_is_within_its_bounds(
    rule: FieldRule, make: Callable[[int], Any], least: int, most: int
) -> None:
    assert rule.accepts(make(least))
    assert rule.accepts(make(most))
    assert not rule.accepts(make(least - 1))
    if rule is not field_rules.PAGE_SIZE:  # `page_tokens` reduces larger ones
        assert not rule.accepts(make(most + 1))


@pytest.mark.parametrize("text", ["", " a", "a ", "a\nb", "a\x00", "\u200b", "\ud83d"])
def test_a_name_is_printable_and_has_no_space_at_its_ends(text: str) -> None:
    assert not field_rules.NAME.accepts(text)
    assert not field_rules.MODEL.accepts(text)
    assert not field_rules.MODELS.accepts([text])


def test_models_are_different_from_each_other() -> None:
    assert not field_rules.MODELS.accepts(["a", "b", "a"])


def test_the_future_begins_after_now() -> None:
    assert field_rules.later_than(7).accepts(8)
    assert not field_rules.later_than(7).accepts(7)


def test_a_time_fits_the_store() -> None:
    year = 31_556_952 * 10**9
    assert field_rules.INSTANT.accepts(0)
    assert field_rules.INSTANT.accepts(291 * year - 1)
    assert not field_rules.INSTANT.accepts(-1)
    assert not field_rules.INSTANT.accepts(291 * year)


def test_a_new_name_is_plain() -> None:
    for name in ("a", "0", "a.b_c-d", "9" * 128):
        assert field_rules.NEW_NAME.accepts(name)
    for name in ("", "A", "aB", "-a", ".a", "_a", "a b", "é", "a/b", "a\n", "9" * 129):
        assert not field_rules.NEW_NAME.accepts(name)


def test_an_error_quotes_only_what_is_not_secret() -> None:
    assert field_rules.NEW_NAME.expected("A").endswith(", but got 'A'")
    assert field_rules.SECRET.expected("A") == "be a secret, or its first 14 characters"


def test_an_unknown_model_is_named_with_its_nearest_names() -> None:
    known = [f"m{number:02}" for number in range(12)]
    assert field_rules.unknown_model(["m01", "m*"], known) == ""
    assert field_rules.unknown_model(["m01", "M07"], known) == (
        "There is no model 'M07'. Did you mean 'm07'? The models are m00, m01, "
        "m02, m03, m04, m05, m06, m07, m08, m09 and 2 more."
    )

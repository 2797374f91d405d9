from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion.credit_amounts import MOST, NANO, members, to_nano, to_text

AMOUNTS = st.integers(0, MOST)


@given(AMOUNTS)
def test_what_is_written_is_read_again(nano: int) -> None:
    assert to_nano(to_text(nano)) == nano


@given(st.integers(-(2**63), 2**63 - 1))
def test_text_is_exact_and_has_no_decimal_too_many(nano: int) -> None:
    text = to_text(nano)

    assert Decimal(text) * NANO == nano
    assert "." not in text or not text.endswith(("0", "."))
    assert "E" not in text


@given(st.integers(0, 10**9 - 1), st.text("0123456789", min_size=1, max_size=9))
def test_decimals_are_read_to_the_last(whole: int, decimals: str) -> None:
    assert to_nano(f"{whole}.{decimals}") == whole * NANO + int(decimals.ljust(9, "0"))


@pytest.mark.parametrize(
    ("text", "nano"),
    [("0", 0), ("25", 25 * NANO), ("0.000000001", 1), ("007.50", 7_500_000_000)],
)
def test_amounts_are_read(text: str, nano: int) -> None:
    assert to_nano(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-1", "+1", "1e3", "1E3", "1_000", "1,5", "1.", ".5", "1.1234567891", "nan"),
        *("inf", " 1", "1 ", "1\n", "1.5\n", "٣", "0x10", "1000000000.000000001", "99999999999"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="credits"):
        to_nano(text)


@given(st.text())
def test_no_text_is_read_as_something_it_does_not_say(text: str) -> None:
    try:
        nano = to_nano(text)
    except ValueError:
        return
    assert Decimal(text) * NANO == nano


def test_an_amount_is_told_twice() -> None:
    assert members("held", 1_500_000_000) == {"held": "1.5", "held_nano_credits": 1_500_000_000}

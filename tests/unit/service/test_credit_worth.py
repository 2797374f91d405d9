from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion.v1.account_pb2 import Worth
from service.credit_worth import CreditWorth, parse

CENT = CreditWorth(10_000_000, "EUR")


@pytest.mark.parametrize(
    ("text", "nano_units", "code"),
    [
        ("0.01 EUR", 10_000_000, "EUR"),
        ("1 USD", 10**9, "USD"),
        ("0.000000001 JPY", 1, "JPY"),
        ("1000000000 IDR", 10**18, "IDR"),
    ],
)
def test_a_worth_is_a_rate_and_a_currency(text: str, nano_units: int, code: str) -> None:
    assert parse(text) == CreditWorth(nano_units, code)


@pytest.mark.parametrize(
    "text",
    [
        *("EUR", "0.01", "0.01EUR", "0.01  EUR", "0.01 eur", "0.01 EURO", "EUR 0.01", "0.01 EUR "),
        *("0 EUR", "0.0 EUR", "-1 EUR", "1e-2 EUR", "0,01 EUR", ".1 EUR", "1.2.3 EUR"),
        *("0.0000000001 EUR", "1000000000.1 EUR", "nan EUR", "٣ EUR"),
    ],
)
def test_other_texts_are_no_worth(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate|amount|credits"):
        parse(text)


@pytest.mark.parametrize(
    ("nano_credits", "amount"),
    [
        (206_000, "0.00000206"),
        (1, "0.00000000001"),
        (-1, "-0.00000000001"),
        (0, "0"),
        (24_500_000_000, "0.245"),
        (-100 * 10**9, "-1"),
    ],
)
def test_the_worth_is_exact_to_the_nano_credit(nano_credits: int, amount: str) -> None:
    assert CENT.of(nano_credits) == Worth(currency_code="EUR", amount=amount)


@given(st.integers(-(2**62), 2**62), st.integers(1, 10**18))
def test_no_amount_is_rounded_and_each_is_short(nano_credits: int, nano_units: int) -> None:
    amount = CreditWorth(nano_units, "EUR").of(nano_credits).amount

    assert Decimal(amount) == Decimal(f"{nano_credits * nano_units}e-18")  # both have all digits
    assert len(amount) <= 40
    assert "E" not in amount

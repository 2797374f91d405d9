import pytest

from chatcompletion import charges
from chatcompletion.v1.chat_completion_service_pb2 import Charge

CHARGE = Charge(
    hold_id="01-ab",
    amount_nano_credits=206_000,
    prompt_nano_credits=6_000,
    completion_nano_credits=200_000,
)


def test_a_charge_travels_in_trailing_metadata() -> None:
    trailers: list[tuple[str, str | bytes]] = [("x-request-id", "a")]
    trailers += charges.metadata(CHARGE)

    assert charges.of(trailers) == CHARGE


@pytest.mark.parametrize(
    "trailers",
    [None, (), (("x", "y"),), ((charges.KEY, "text"),), ((charges.KEY, b"\xff\xff"),)],
)
def test_there_can_be_no_charge(trailers: tuple[tuple[str, str | bytes], ...] | None) -> None:
    assert charges.of(trailers) is None


@pytest.mark.parametrize(
    ("marks", "end"),
    [
        ({}, ""),
        ({"estimated": True}, ", estimated"),
        ({"estimated": True, "partial": True}, ", estimated, partial"),
    ],
)
def test_a_charge_is_a_dictionary_of_structured_fields(marks: dict[str, bool], end: str) -> None:
    charge = Charge()
    charge.CopyFrom(CHARGE)
    for name in marks:
        setattr(charge, name, True)

    text = 'nano-credits=206000, prompt=6000, completion=200000, hold="01-ab"'
    assert charges.text(charge) == text + end
    charge.worth.amount, charge.worth.currency_code = "0.00000206", "EUR"
    assert charges.text(charge) == text + end + ', worth="0.00000206 EUR"'

"""What a credit is worth in a currency: a currency code and an exact rate. Pure, without floats.

    "0.01 EUR" -> parse -> CreditWorth -> of(206_000 nano-credits) -> Worth("EUR", "0.00000206")

A rate has at most nine decimals and an amount of credit has nine, so that their product has at most
18 and is shown in full: nothing is rounded.
"""

import re
from dataclasses import dataclass
from typing import Final

from chatcompletion.credit_amounts import to_nano
from chatcompletion.v1.account_pb2 import Worth

_DECIMALS: Final = 18
_WORTH: Final = re.compile(r"([0-9.]{1,20}) ([A-Z]{3})")


@dataclass(frozen=True, slots=True)
class CreditWorth:
    """The worth of a credit."""

    nano_units: int
    """Billionths of the currency's unit: more than 0, at most 10^18."""
    currency_code: str
    """Three capital letters, as in ISO 4217."""

    def of(self, nano_credits: int) -> Worth:
        """Return the exact worth of an amount, which can be negative."""
        whole, rest = divmod(abs(nano_credits) * self.nano_units, 10**_DECIMALS)
        decimals = f".{rest:0{_DECIMALS}}".rstrip("0").rstrip(".")
        sign = "-" if nano_credits < 0 else ""
        return Worth(currency_code=self.currency_code, amount=f"{sign}{whole}{decimals}")


def parse(text: str) -> CreditWorth:
    """Return the worth in a text, such as "0.01 EUR".

    Raises:
        ValueError: The text has another form, or the rate is 0.
    """
    found = _WORTH.fullmatch(text)
    if found is None:
        raise ValueError("not a rate and a currency code")
    rate = to_nano(found[1])
    if not rate:
        raise ValueError("the rate is 0")
    return CreditWorth(rate, found[2])

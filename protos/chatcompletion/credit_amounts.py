"""Amounts of credit: decimal text for people, integers of nano-credits in code. Exact, no floats.

    "24.5"  -> to_nano ->  24_500_000_000  -> to_text ->  "24.5"

A credit is 10^9 nano-credits, so that an amount has at most nine decimals.
"""

import re
from decimal import Decimal
from typing import Final

NANO: Final = 10**9
"""Nano-credits in a credit."""

MOST: Final = 10**9 * NANO
"""The largest amount that `to_nano` takes: a billion credits."""

_AMOUNT: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,9})?")


def to_nano(text: str) -> int:
    """Return an amount of credits in nano-credits.

    Args:
        text: Digits with at most nine decimals, without sign or exponent: 0 to a billion credits.

    Raises:
        ValueError: The text has another form, or the amount is larger.
    """
    if not _AMOUNT.fullmatch(text):
        raise ValueError("not an amount of credits")
    # At most 19 digits, which is within the precision of the default context.
    amount = int(Decimal(text).scaleb(9))
    if amount > MOST:
        raise ValueError("more than a billion credits")
    return amount


def to_text(nano: int) -> str:
    """Return an amount of nano-credits as decimal credits, without trailing zeros."""
    whole, rest = divmod(abs(nano), NANO)
    decimals = f".{rest:09}".rstrip("0").rstrip(".")
    return f"{'-' if nano < 0 else ''}{whole}{decimals}"


def members(name: str, nano: int) -> dict[str, str | int]:
    """Return JSON members for an amount: `name`, in credits, and `name_nano_credits`."""
    return {name: to_text(nano), f"{name}_nano_credits": nano}

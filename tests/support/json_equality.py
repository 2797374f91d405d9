"""Whether two JSON documents say the same: the judge of the codec, which shares no code with it.

    the same        {"a":1,"b":2} {"b":2,"a":1}     "ä" "\\u00e4"     1 1.0 1e0     1e-1 0.1
    not the same    absent null []     1 true "1"     9007199254740992 9007199254740993

Integers are exact. Where one of two numbers is spelt with a fraction or an exponent, they are the
same if their double is, as to every reader; but no number is infinite, and none but zero is zero.
"""

import json
from decimal import Decimal, InvalidOperation
from math import isinf
from typing import Any


class Number:
    """A JSON number, equal to others that say the same."""

    __slots__ = ("exact", "is_integer", "literal")

    def __init__(self, literal: str) -> None:
        self.literal = literal
        self.is_integer = literal.lstrip("-").isdigit()
        try:
            self.exact: Decimal | str = Decimal(literal)
        except InvalidOperation:
            self.exact = literal

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Number):
            return NotImplemented
        if self.exact == other.exact:
            return True
        if self.is_integer and other.is_integer:
            return False
        mine, others = float(self.literal), float(other.literal)
        return mine == others and mine != 0.0 and not isinf(mine)

    __hash__ = None  # type: ignore[assignment]  # no hash goes with such an equality

    def __repr__(self) -> str:
        return self.literal


def parse(document: str | bytes) -> Any:
    """The value of a JSON document. Of duplicate members it has the last."""
    return json.loads(
        document, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
    )


def _refuse_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is not JSON")

"""Whether two JSON documents are equal. For tests of the codec; shares no code with it.

    equal        {"a":1,"b":2} {"b":2,"a":1}     "ä" "\\u00e4"     1 1.0 1e0     1e-1 0.1
    different    absent null []     1 true "1"     9007199254740992 9007199254740993

Integers are exact. If one of two numbers has a fraction or an exponent, they are equal if they have
the same double, as for every parser. However, no number equals infinity, and only zero equals zero.
"""

import json
from decimal import Decimal, InvalidOperation
from math import isinf
from typing import Any


class Number:
    """A JSON number, equal to numbers with the same value."""

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
    """Return the value of a JSON document, with the last of duplicate members."""
    return json.loads(
        document, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
    )


def _refuse_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is not JSON")

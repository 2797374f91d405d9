"""JSON numbers, and the two types of fields that carry them.

    literal                     int64 field            double field
    7                           7                      7.0, written as 7
    7.0, 70e-1                  7                      7.0, written as 7
    7.5                         does not fit           7.5
    9223372036854775808         does not fit           9.223372036854775808e18
    9007199254740993            9007199254740993       does not fit: no double equals it
    0.1000000000000000055511    does not fit           0.1: the nearest double
    1e999, 1e-999               does not fit           does not fit: infinite, or zero

A number that does not fit its field stays in extra_json unchanged. Integers are exact. For other
numbers the nearest double suffices, because JSON parsers agree on it (RFC 8259, section 6).
"""

from decimal import Decimal, InvalidOperation
from math import copysign, isfinite

from chatcompletion.openai_json.codec_errors import EncodeError

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
CONSECUTIVE = 2.0**53
"""Every integer up to this magnitude is a double."""


def integral(literal: str) -> int | None:
    """Return the int64 that equals a JSON number in any spelling, or None."""
    try:
        number = Decimal(literal)
        # The magnitude first: the integer of 1e999999999 has as many digits.
        if number.adjusted() > 18 or number != int(number):
            return None
    except InvalidOperation:
        return None
    return int(number) if INT64_MIN <= number <= INT64_MAX else None


def says(value: float, literal: str) -> bool:
    """Whether `value`, the double nearest to `literal`, represents that number.

    Needed only for zero and for magnitudes from 2**53: between them, every double does.
    """
    try:
        number = Decimal(literal)
    except InvalidOperation:
        return False
    if value == 0.0 or not literal.lstrip("-").isdigit():
        return isfinite(value) and bool(number) == bool(value)
    return isfinite(value) and number == Decimal(value) == Decimal(repr(value))


def is_double(literal: str) -> bool:
    """Whether a double represents the number `literal`."""
    return says(float(literal), literal)


def exceeds_int64(literal: str) -> bool:
    """Whether a number is too large, positive or negative, for an int64."""
    try:
        return not INT64_MIN <= Decimal(literal) <= INT64_MAX
    except InvalidOperation:
        # The exponent has too many digits for a Decimal: the number is huge, or almost zero.
        return "e-" not in literal.lower()


def written(value: float, name: str) -> int | float:
    """Return the JSON number for a double: an int if it is integral.

    Some consumers reject `-100.0` for an integer; all accept `-100`.

    Args:
        value: The double.
        name: The member that has the value, for the error.

    Raises:
        EncodeError: `value` is NaN or infinite.
    """
    if value.is_integer():
        if -CONSECUTIVE < value < CONSECUTIVE and (value or copysign(1.0, value) > 0):
            return int(value)
    elif not isfinite(value):
        raise EncodeError(f"'{name}' is not a finite number.", code="invalid_number", param=name)
    return value

"""JSON numbers and the two types that carry them.

    literal                     int64 field            double field
    7                           7                      7.0, written again as 7
    7.0, 70e-1                  7                      7.0, written again as 7
    7.5                         cannot say             7.5
    9223372036854775808         cannot say             9.223372036854775808e18
    9007199254740993            9007199254740993       cannot say: no double is that integer
    0.1000000000000000055511    cannot say             0.1: the nearest double
    1e999, 1e-999               cannot say             cannot say: infinite, or zero

What a field cannot say stays in extra_json as it is spelt. Integers are exact; other numbers are
the nearest double, which is what readers of JSON agree on (RFC 8259, section 6).
"""

from decimal import Decimal, InvalidOperation
from math import copysign, isfinite

from chatcompletion.openai_json.codec_errors import EncodeError

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
CONSECUTIVE = 2.0**53
"""Below this magnitude each integer is a double."""


def integral(literal: str) -> int | None:
    """Return the int64 that a JSON number is, however it is spelt; None where it is none."""
    try:
        number = Decimal(literal)
        # The magnitude first: the integer of 1e999999999 has as many digits.
        if number.adjusted() > 18 or number != int(number):
            return None
    except InvalidOperation:
        return None
    return int(number) if INT64_MIN <= number <= INT64_MAX else None


def says(value: float, literal: str) -> bool:
    """Whether `value`, the double nearest to `literal`, says that number.

    For magnitudes from 2**53 and for zero; between them each double does.
    """
    try:
        number = Decimal(literal)
    except InvalidOperation:
        return False
    if value == 0.0 or not literal.lstrip("-").isdigit():
        return isfinite(value) and bool(number) == bool(value)
    return isfinite(value) and number == Decimal(value) == Decimal(repr(value))


def is_double(literal: str) -> bool:
    """Whether a double says the number `literal`."""
    return says(float(literal), literal)


def exceeds_int64(literal: str) -> bool:
    """Whether a number is too large, positive or negative, for an int64."""
    try:
        return not INT64_MIN <= Decimal(literal) <= INT64_MAX
    except InvalidOperation:
        # No Decimal has an exponent of so many digits: the number is beyond all, or next to zero.
        return "e-" not in literal.lower()


def written(value: float, name: str) -> int | float:
    """Return what stands in JSON for a double: an integer without a fraction where it is one.

    A consumer that wants an integer may refuse `-100.0`; none refuses `-100`.

    Raises:
        EncodeError: `value` is NaN or infinite; `name` is its member.
    """
    if value.is_integer():
        if -CONSECUTIVE < value < CONSECUTIVE and (value or copysign(1.0, value) > 0):
            return int(value)
    elif not isfinite(value):
        raise EncodeError(f"'{name}' is not a finite number.", code="invalid_number", param=name)
    return value

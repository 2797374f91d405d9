"""Numbers, strings, booleans, null and listed values that satisfy a schema's keywords.

`variant` asks for another value than the one for variant 0, for arrays whose items are all
different; where there is no other one, the same comes again.
"""

import json
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from service.simulator.pattern_instance import UnreadablePatternError, matching

MAX_STRING = 100_000
"""Characters of the longest string that is made."""

_WORD = "simulated"

_FORMATS: dict[str, Callable[[int], str]] = {
    "date-time": lambda n: f"2024-01-{n % 28 + 1:02d}T{n // 28 % 24:02d}:00:00Z",
    "date": lambda n: f"{2024 + n // 28 % 1000}-01-{n % 28 + 1:02d}",
    "time": lambda n: f"{n % 24:02d}:{n // 24 % 60:02d}:00Z",
    "duration": lambda n: f"P{n + 1}D",
    "email": lambda n: f"simulated{n}@example.com",
    "hostname": lambda n: f"host{n}.example.com",
    "ipv4": lambda n: f"192.0.2.{n % 256}",
    "ipv6": lambda n: f"2001:db8::{n + 1:x}" if n < 65_535 else "2001:db8::1",
    "uri": lambda n: f"https://example.com/{n}",
    "uuid": lambda n: f"00000000-0000-4000-8000-{n:012d}",
}


class UnsatisfiableError(ValueError):
    """No value satisfies the schema, or none that the simulator finds."""


def listed(keywords: Mapping[str, Any], values: Any, variant: int) -> Any:
    """One of the values of `enum` or `const` that the other keywords allow.

    Raises:
        UnsatisfiableError: there is none.
    """
    if not isinstance(values, list):
        raise UnsatisfiableError("enum is not a list")
    enum = keywords.get("enum")
    allowed = None if enum is None else {_key(value) for value in enum}
    fitting = [
        value
        for value in values
        if _fits(value, keywords) and (allowed is None or _key(value) in allowed)
    ]
    if not fitting:
        raise UnsatisfiableError("no value of an enum or const is allowed")
    return fitting[variant % len(fitting)]


def scalar(kind: Any, keywords: Mapping[str, Any], variant: int) -> Any:
    """Return a value of the type `kind`.

    Raises:
        UnsatisfiableError: there is none, or `kind` is no type of JSON.
    """
    if kind == "null":
        return None
    if kind == "boolean":
        return variant % 2 == 0
    if kind in ("integer", "number"):
        return _number(kind == "integer", keywords, variant)
    if kind == "string":
        return _string(keywords, variant)
    raise UnsatisfiableError("a type is none of JSON's")


def _string(keywords: Mapping[str, Any], variant: int) -> str:
    shortest = keywords.get("minLength", 0)
    longest = keywords.get("maxLength")
    if shortest > MAX_STRING or (longest is not None and longest < shortest):
        raise UnsatisfiableError("minLength is too large")
    if "pattern" in keywords:
        try:
            return matching(
                keywords["pattern"], shortest=shortest, longest=longest, variant=variant
            )
        except UnreadablePatternError as exc:
            raise UnsatisfiableError(str(exc)) from None
    make = _FORMATS.get(keywords.get("format", ""))
    if make is not None:
        return make(variant)
    text = _WORD if variant == 0 else f"{variant}{_WORD}"
    return text.ljust(shortest, "x")[:longest]


def _number(whole: bool, keywords: Mapping[str, Any], variant: int) -> int | float:
    low, low_open = _bound(keywords, "minimum", "exclusiveMinimum", max)
    high, high_open = _bound(keywords, "maximum", "exclusiveMaximum", min)
    step = Fraction(1) if whole else None
    if "multipleOf" in keywords:
        multiple = _fraction(keywords["multipleOf"])
        if multiple <= 0:
            raise UnsatisfiableError("multipleOf is not positive")
        step = multiple if step is None else _least_common_multiple(step, multiple)
    if step is None:
        found = _between(low, low_open, high, high_open, variant)
    else:
        first = (
            None
            if low is None
            else math.floor(low / step) + 1
            if low_open
            else math.ceil(low / step)
        )
        last = (
            None
            if high is None
            else math.ceil(high / step) - 1
            if high_open
            else math.floor(high / step)
        )
        found = _counted(first, last, variant) * step
    return found.numerator if found.denominator == 1 else float(found)


def _counted(first: int | None, last: int | None, variant: int) -> int:
    """Return the variant-th whole number of first..last, beginning as near to 0 as possible."""
    if first is not None and last is not None and first > last:
        raise UnsatisfiableError("no number lies within the bounds")
    start = 0
    if first is not None:
        start = max(start, first)
    if last is not None:
        start = min(start, last)
    found = start + variant
    if last is not None and found > last:
        found = start - (found - last)
    return start if first is not None and found < first else found


def _between(
    low: Fraction | None, low_open: bool, high: Fraction | None, high_open: bool, variant: int
) -> Fraction:
    if low is not None and high is not None:
        if low > high or (low == high and (low_open or high_open)):
            raise UnsatisfiableError("no number lies within the bounds")
        if low < 0 < high and variant == 0:
            return Fraction(0)
        return low if low == high else low + (high - low) * Fraction(variant + 1, variant + 2)
    if low is not None:
        return max(low, Fraction(-1)) + 1 + variant
    if high is not None:
        return min(high, Fraction(1)) - 1 - variant
    return Fraction(variant)


def _bound(
    keywords: Mapping[str, Any],
    including: str,
    excluding: str,
    stricter: Callable[[Fraction, Fraction], Fraction],
) -> tuple[Fraction | None, bool]:
    """Return the stricter of two bounds and whether it is excluded itself."""
    closed = _fraction(keywords[including]) if including in keywords else None
    exclusive = keywords.get(excluding)
    if exclusive is True:  # Draft 4: a flag beside the bound.
        return closed, True
    if exclusive is None or exclusive is False:
        return closed, False
    opened = _fraction(exclusive)
    if closed is None or stricter(closed, opened) == opened:
        return opened, True
    return closed, False


def _fraction(value: Any) -> Fraction:
    """Return the number as it is written in decimal, so that 0.1 is a tenth."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnsatisfiableError("a bound is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnsatisfiableError("a bound is not finite")
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def _least_common_multiple(one: Fraction, other: Fraction) -> Fraction:
    return Fraction(
        math.lcm(one.numerator, other.numerator), math.gcd(one.denominator, other.denominator)
    )


def _fits(value: Any, keywords: Mapping[str, Any]) -> bool:
    """Tell whether the value satisfies the keywords for its type that a listed value may fail."""
    kinds = keywords.get("type")
    if kinds is not None and not any(
        _is(value, kind) for kind in (kinds if isinstance(kinds, list) else [kinds])
    ):
        return False
    if isinstance(value, str):
        return bool(
            keywords.get("minLength", 0) <= len(value) <= keywords.get("maxLength", math.inf)
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, low_open = _bound(keywords, "minimum", "exclusiveMinimum", max)
        high, high_open = _bound(keywords, "maximum", "exclusiveMaximum", min)
        number = _fraction(value)
        above = low is None or number > low or (number == low and not low_open)
        below = high is None or number < high or (number == high and not high_open)
        multiple = keywords.get("multipleOf")
        whole = multiple is None or (number / _fraction(multiple)).denominator == 1
        return above and below and whole
    return True


_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}


def _is(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(kind, ()))


def _key(value: Any) -> str:
    """Equal for values that JSON Schema calls equal."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _common_types(one: Any, other: Any) -> list[Any]:
    ones = one if isinstance(one, list) else [one]
    others = other if isinstance(other, list) else [other]
    common = [kind for kind in ones if kind in others]
    if ("integer" in ones and "number" in others) or ("number" in ones and "integer" in others):
        common.append("integer")
    return common


def _common_values(one: list[Any], other: list[Any]) -> list[Any]:
    keys = {_key(value) for value in other}
    return [value for value in one if _key(value) in keys]


def _same(one: Any, other: Any) -> Any:
    if _key(one) != _key(other):
        raise UnsatisfiableError("two constants or patterns contradict each other")
    return one


def _common_multiple(one: Any, other: Any) -> int | float:
    found = _least_common_multiple(_fraction(one), _fraction(other))
    return found.numerator if found.denominator == 1 else float(found)


MERGES: dict[str, Callable[[Any, Any], Any]] = {
    # keyword: what satisfies it in two schemas at once
    "type": _common_types,
    "enum": _common_values,
    "const": _same,
    "pattern": _same,
    "multipleOf": _common_multiple,
    "minLength": max,
    "minimum": max,
    "exclusiveMinimum": max,
    "maxLength": min,
    "maximum": min,
    "exclusiveMaximum": min,
}

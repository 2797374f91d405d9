"""The values of arguments: from a text to a value, or an error that says what it must be.

"10.5" -> credit -> 10_500_000_000        "30d" -> later(now) -> a time in nanoseconds
"""

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, TypeVar

from chatcompletion.credit_amounts import to_nano
from service.accounts import field_rules, months
from service.accounts.field_rules import FieldRule

MOMENT: Final = "a duration such as 30d, 12h or 15m, or a time such as 2026-01-31T12:00:00Z"
"""What `later` and `earlier` take."""

_UNITS: Final = {"m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
_DURATION: Final = re.compile(r"([0-9]{1,6})([mhd])")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_T = TypeVar("_T")


def zone_name(text: str) -> str:
    """Return the name of a time zone, unchanged."""
    if not field_rules.TIME_ZONE.accepts(text):
        raise argparse.ArgumentTypeError(f"must {field_rules.no_time_zone(text)}")
    return text


def or_none(parse: Callable[[str], _T]) -> Callable[[str], _T | None]:
    """Return a parser that also takes `none`, as None."""
    return lambda text: None if text == "none" else parse(text)


def _checked(value: _T, rule: FieldRule) -> _T:
    if not rule.accepts(value):
        raise argparse.ArgumentTypeError(f"must {rule.expected(value)}")
    return value


def text_of(rule: FieldRule) -> Callable[[str], str]:
    """Return a parser of texts that follow a rule."""
    return lambda text: _checked(text, rule)


def limit(text: str) -> int:
    """Parse a limit of a key."""
    is_number = text.isascii() and text.isdigit() and len(text) <= 10
    return _checked(int(text) if is_number else 0, field_rules.LIMIT)


def models(text: str) -> tuple[str, ...]:
    """Parse names of models, separated by commas."""
    return _checked(tuple(name.strip() for name in text.split(",")), field_rules.MODELS)


def month(text: str) -> str:
    """Parse a month such as 2026-11."""
    try:
        return months.month(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be a month such as 2026-11") from error


def zone(text: str) -> tzinfo:
    """Parse the name of a time zone."""
    try:
        return months.zone(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be a time zone such as Europe/Vienna") from error


def grace(text: str) -> int:
    """Parse a duration, in nanoseconds."""
    duration = _DURATION.fullmatch(text)
    if not duration:
        raise argparse.ArgumentTypeError("must be a duration such as 7d, 12h or 15m")
    return _checked(int(duration[1]) * _UNITS[duration[2]], field_rules.GRACE)


def credit(text: str) -> int:
    """Parse an amount of credits, in nano-credits."""
    try:
        return to_nano(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            "must be an amount of credits up to 1000000000, with at most 9 decimals"
        ) from error


def some_credit(text: str) -> int:
    """Parse an amount of credits above 0, in nano-credits."""
    amount = credit(text)
    if not amount:
        raise argparse.ArgumentTypeError("must be more than 0")
    return amount


def later(now: int) -> Callable[[str], int]:
    """Return a parser of a time after `now`, both in nanoseconds since the Unix epoch."""
    return lambda text: _checked(_instant(text, now, 1), field_rules.later_than(now))


def earlier(now: int) -> Callable[[str], int]:
    """Return a parser of a time, or of a duration before `now`, as `later`."""
    return lambda text: _instant(text, now, -1)


def _instant(text: str, now: int, direction: int) -> int:
    """Parse a time, or a duration from `now` in a direction (1 or -1)."""
    duration = _DURATION.fullmatch(text)
    if duration:
        instant = now + direction * int(duration[1]) * _UNITS[duration[2]]
        return _checked(instant, field_rules.INSTANT)
    try:
        named = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {MOMENT}") from error
    if named.tzinfo is None:
        named = named.replace(tzinfo=UTC)
    return _checked((named - _EPOCH) // timedelta(microseconds=1) * 1000, field_rules.INSTANT)

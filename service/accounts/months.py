"""Calendar months, as operators write them.

"2026-11"              -> 1 November 2026, 00:00 UTC, to 1 December 2026, 00:00 UTC
"2026-11", "Asia/Tokyo" -> the same in Tokyo: nine hours earlier
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from service import time_zones

_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS: Final = range(1971, 2261)
"""Every time of these years fits the 64 bits of the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Month:
    """A calendar month."""

    name: str
    """Such as "2026-11"."""
    start: int
    """The first moment, in nanoseconds since the Unix epoch."""
    end: int
    """The first moment of the next month."""


def zone(name: str) -> tzinfo:
    """Return the time zone with a name, such as "Europe/Vienna".

    Raises:
        ValueError: The system does not have this time zone.
    """
    found = time_zones.named(name)
    if found is None:
        raise ValueError("not the name of a time zone")
    return found


def month(text: str, within: tzinfo = UTC) -> Month:
    """Return a month.

    Args:
        text: Year and month, such as "2026-11", from 1971 to 2260.
        within: The time zone in which it begins and ends.

    Raises:
        ValueError: The text has another form.
    """
    found = _MONTH.fullmatch(text)
    if not found or int(found[1]) not in _YEARS:
        raise ValueError("not a month")
    year, number = int(found[1]), int(found[2])
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    return Month(name=text, start=_first(year, number, within), end=_first(*following, within))


def _first(year: int, number: int, within: tzinfo) -> int:
    """Return the first moment of a month."""
    first = datetime(year, number, 1, tzinfo=within)
    return (first - _EPOCH) // timedelta(microseconds=1) * 1000

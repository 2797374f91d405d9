from datetime import UTC, datetime

import pytest

from service.accounts.months import month, zone

SECOND = 10**9
HOUR = 3600 * SECOND


def nano(year: int, number: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, number, day, hour, tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-11", nano(2026, 11, 1), nano(2026, 12, 1)),
        ("2026-12", nano(2026, 12, 1), nano(2027, 1, 1)),
        ("2028-02", nano(2028, 2, 1), nano(2028, 3, 1)),
        ("1971-01", nano(1971, 1, 1), nano(1971, 2, 1)),
        ("2260-12", nano(2260, 12, 1), nano(2261, 1, 1)),
    ],
)
def test_a_month_begins_and_ends_in_utc(text: str, start: int, end: int) -> None:
    found = month(text)
    assert (found.name, found.start, found.end) == (text, start, end)
    assert end < 2**63


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026", "2026-1", "2026-00", "2026-13", "26-11", "2026-11-01"),
        *("1970-12", "2261-01", "٢٠٢٦-11", " 2026-11", "2026-11\n"),
    ],
)
def test_other_texts_are_no_months(text: str) -> None:
    with pytest.raises(ValueError, match="not a month"):
        month(text)


@pytest.mark.parametrize(
    ("name", "text", "start", "hours"),
    [
        ("Asia/Tokyo", "2026-11", nano(2026, 10, 31, 15), 30 * 24),
        # Summer time ends on 25 October and begins on 29 March.
        ("Europe/Vienna", "2026-10", nano(2026, 9, 30, 22), 31 * 24 + 1),
        ("Europe/Vienna", "2026-03", nano(2026, 2, 28, 23), 31 * 24 - 1),
    ],
)
def test_a_month_can_be_that_of_a_time_zone(name: str, text: str, start: int, hours: int) -> None:
    found = month(text, zone(name))
    assert (found.start, found.end - found.start) == (start, hours * HOUR)


@pytest.mark.parametrize("name", ["", "Nowhere/Else", "../../etc/passwd", "/etc/passwd", "x" * 300])
def test_unknown_time_zones_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a time zone"):
        zone(name)

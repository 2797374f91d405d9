"""Windows in time zones, and what is spent and held in them."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from service.ledger.budgets import (
    Budget,
    Budgets,
    Window,
    available,
    bounds,
    end,
    heed_time,
    hold,
    is_time_zone,
    local_time,
    put,
    refusing,
    remove,
    unspent,
)

SECOND = 10**9
BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> int:
    """Return a time, given by the clocks of a zone, in nanoseconds since the Unix epoch."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


NOON = at("2026-11-18 12:00")  # a Wednesday


# ------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("window", "zone", "now", "start", "after"),
    [
        (Window.DAY, "UTC", "2026-11-18 00:00", "2026-11-18 00:00", "2026-11-19 00:00"),
        (Window.DAY, "UTC", "2026-11-18 23:59", "2026-11-18 00:00", "2026-11-19 00:00"),
        (Window.DAY, "Asia/Tokyo", "2026-11-18 15:00", "2026-11-18 15:00", "2026-11-19 15:00"),
        (Window.WEEK, "UTC", "2026-11-18 12:00", "2026-11-16 00:00", "2026-11-23 00:00"),
        (Window.WEEK, "UTC", "2026-11-22 23:59", "2026-11-16 00:00", "2026-11-23 00:00"),
        (Window.WEEK, "UTC", "2027-01-01 00:00", "2026-12-28 00:00", "2027-01-04 00:00"),
        (Window.MONTH, "UTC", "2026-11-18 12:00", "2026-11-01 00:00", "2026-12-01 00:00"),
        (Window.MONTH, "UTC", "2026-12-31 23:59", "2026-12-01 00:00", "2027-01-01 00:00"),
        (Window.MONTH, "UTC", "2028-02-29 12:00", "2028-02-01 00:00", "2028-03-01 00:00"),
        (Window.MONTH, BERLIN, "2026-10-31 23:30", "2026-10-31 23:00", "2026-11-30 23:00"),
        (Window.MONTH, BERLIN, "2026-10-15 12:00", "2026-09-30 22:00", "2026-10-31 23:00"),
        # A day of 23 hours, and one of 25.
        (Window.DAY, BERLIN, "2026-03-29 12:00", "2026-03-28 23:00", "2026-03-29 22:00"),
        (Window.DAY, BERLIN, "2026-10-25 12:00", "2026-10-24 22:00", "2026-10-25 23:00"),
        # Midnight is skipped: the day begins at one.
        (Window.DAY, "America/Havana", "2027-03-14 12:00", "2027-03-14 05:00", "2027-03-15 04:00"),
        # Midnight comes twice: the day begins with the first.
        (Window.DAY, "America/Havana", "2026-11-01 05:30", "2026-11-01 04:00", "2026-11-02 05:00"),
        # At one past midnight, the clocks went back to the day before.
        (
            Window.DAY,
            "America/St_Johns",
            "2010-11-07 03:00",
            "2010-11-07 02:30",
            "2010-11-08 03:30",
        ),
        # A day was left out.
        (Window.DAY, "Pacific/Apia", "2011-12-30 10:30", "2011-12-30 10:00", "2011-12-31 10:00"),
        (Window.DAY, "nowhere", "2026-11-18 12:00", "2026-11-18 00:00", "2026-11-19 00:00"),
    ],
)
def test_a_window_begins_and_ends_at_midnight_there(
    window: Window, zone: str, now: str, start: str, after: str
) -> None:
    assert bounds(window, zone, at(now)) == (at(start), at(after))


def test_all_time_has_no_end() -> None:
    assert bounds(Window.TOTAL, BERLIN, NOON) == (NOON, None)


@pytest.mark.parametrize("zone", ["", "Europe", "/etc/passwd", "../UTC", "Europe/Wien", "UTC\0"])
def test_what_is_no_time_zone(zone: str) -> None:
    assert is_time_zone("Europe/Vienna")
    assert not is_time_zone(zone)


def test_a_time_is_shown_as_the_clocks_there_show_it() -> None:
    assert local_time(at("2026-11-30 23:00"), BERLIN) == "2026-12-01T00:00:00+01:00"
    assert local_time(at("2026-11-30 23:00"), "nowhere") == "2026-11-30T23:00:00+00:00"


# -------------------------------------------------------------------------------------- counts


def budgets(limit: int = 100, window: Window = Window.DAY, zone: str = "UTC") -> Budgets:
    return put(None, window, limit, zone, NOON)


def state(of: Budgets) -> list[tuple[str, int, int]]:
    return [(one.window.value, one.spent, one.held) for one in of.of]


def test_a_hold_and_its_charge_count_in_every_window() -> None:
    of = put(budgets(), Window.TOTAL, 500, "UTC", NOON)
    counted = hold(of, 30)
    assert state(of) == [("day", 0, 30), ("total", 0, 30)]
    end(of, counted, held=30)
    end(of, counted, charge=20)
    assert state(of) == [("day", 20, 0), ("total", 20, 0)]


def test_the_end_of_a_hold_changes_no_later_window() -> None:
    of = put(budgets(), Window.TOTAL, 500, "UTC", NOON)
    end(of, hold(of, 1), held=1, charge=1)
    counted = hold(of, 30)
    assert heed_time(of, NOON + 12 * 3600 * SECOND)
    assert state(of) == [("day", 0, 0), ("total", 1, 30)]
    other = hold(of, 7)
    end(of, counted, held=30, charge=20)
    assert state(of) == [("day", 0, 7), ("total", 21, 7)]
    end(of, other, held=7, charge=6)
    assert state(of) == [("day", 6, 0), ("total", 27, 0)]


def test_a_window_ends_with_its_last_nanosecond() -> None:
    of = budgets()
    hold(of, 30)
    midnight = NOON + 12 * 3600 * SECOND
    assert not heed_time(of, midnight - 1)
    assert state(of) == [("day", 0, 30)]
    assert heed_time(of, midnight)
    assert (of.of[0].start, of.of[0].end) == (midnight, midnight + 24 * 3600 * SECOND)


def test_a_budget_counts_no_hold_from_before_it_was_set() -> None:
    of = budgets()
    counted = hold(of, 30)
    remove(of, Window.DAY, NOON)
    put(of, Window.DAY, 100, "UTC", NOON)
    end(of, counted, held=30, charge=20)
    end(of, "", held=30, charge=20)
    end(None, counted, held=30, charge=20)
    assert state(of) == [("day", 0, 0)]


def test_another_limit_or_time_zone_keeps_the_counts() -> None:
    of = budgets()
    end(of, hold(of, 30), charge=20)
    assert put(of, Window.DAY, 50, "Asia/Tokyo", NOON) is of
    (budget,) = of.of
    assert (budget.limit, budget.time_zone, budget.spent, budget.held) == (50, "Asia/Tokyo", 20, 30)
    assert (budget.start, budget.end) == (at("2026-11-17 15:00"), at("2026-11-18 15:00"))


def test_budgets_are_in_the_order_of_their_length() -> None:
    of: Budgets | None = None
    for window in (Window.TOTAL, Window.WEEK, Window.DAY, Window.MONTH):
        of = put(of, window, 1, "UTC", NOON)
    assert of is not None
    assert [budget.window for budget in of.of] == [*Window]
    assert len({budget.serial for budget in of.of}) == 4


def test_a_clock_that_is_set_back_gives_no_budget_twice() -> None:
    of = budgets()
    end(of, hold(of, 30), held=30, charge=20)
    day = 24 * 3600 * SECOND
    start = of.of[0].start
    # Back to yesterday, the window stays; further back, it comes along.
    assert not heed_time(of, start - day)
    assert heed_time(of, start - day - 1)
    assert (of.of[0].start, state(of)) == (start - 2 * day, [("day", 20, 0)])


def test_budgets_are_stored_as_a_short_text() -> None:
    of = budgets()
    hold(of, 30)
    text = msgspec.json.encode(of)
    assert text == (b'[2,[["day",100,"UTC",1,1794960000000000000,1795046400000000000,0,30]]]')
    assert msgspec.json.decode(text, type=Budgets) == of


# ------------------------------------------------------------------------------------ refusals


def budget(window: Window = Window.DAY, **values: Any) -> Budget:
    plain = {"limit": 100, "serial": 1, "start": 0, "end": 10, "spent": 0, "held": 0}
    return Budget(window=window, time_zone="UTC", **{**plain, **values})


def test_an_amount_up_to_the_rest_fits() -> None:
    one = budget(spent=60, held=30)
    assert (unspent(one), available(one)) == (40, 10)
    assert refusing([one], 10) is None
    assert refusing([one], 11) is one


def test_a_call_that_costs_nothing_always_fits() -> None:
    one = budget(limit=10, spent=60, held=30)
    assert (unspent(one), available(one)) == (0, 0)
    assert refusing([one], 0) is None


def test_the_budget_that_refuses_the_longest_is_named() -> None:
    day, week = budget(spent=90), budget(Window.WEEK, spent=90, end=70)
    total, held = budget(Window.TOTAL, spent=90, end=None), budget(held=95)
    assert refusing([held, day, week], 20) is week
    assert refusing([week, day], 20) is week
    assert refusing([day, total, week], 20) is total
    less = budget(Window.MONTH, held=99)
    assert refusing([held, less], 20) is less
    assert refusing([less, held], 20) is less

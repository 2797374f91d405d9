"""Budgets: hard limits of what a key or an account can spend in a window of time.

    place     spent + held + amount <= limit -> held += amount
    end       held -= amount, spent += charge      in the window in which the hold was placed
    passed    the next window begins with spent = held = 0

A window is a day, a week from Monday, a calendar month, or all time. Days begin at midnight in the
budget's time zone, also on the days on which its clocks change. Each window of a budget has a
serial, which is unique in the key or account. A hold keeps the serials of its windows: its end
changes a window that is still the current one, and nothing otherwise.

A charge can exceed its budget in one case: the hold has expired, other calls have used its room,
and its settlement arrives late. The charge counts in full, and further calls are rejected.

If the clock is set back into the window before, the current window stays. Otherwise the clock could
give a budget twice. If the clock is set back further, the window at that time keeps the counts.

Amounts are nano-credits, times nanoseconds since the Unix epoch.
"""

import enum
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from service import time_zones


class Window(enum.StrEnum):
    """The time for which a budget holds."""

    DAY = "day"
    WEEK = "week"
    """From Monday."""
    MONTH = "month"
    """A calendar month."""
    TOTAL = "total"
    """All time since the budget was set."""


class Budget(msgspec.Struct, array_like=True, gc=False):
    """The limit of one window, and what is used of it."""

    window: Window
    limit: int
    """At least 1."""
    time_zone: str
    """A name of the IANA time zone database."""
    serial: int
    """The serial of the current window."""
    start: int
    """The start of the current window."""
    end: int | None
    """The start of the next window; None for TOTAL."""
    spent: int = 0
    """The charges of the holds of the window."""
    held: int = 0
    """The sum of the open holds of the window."""


class Budgets(msgspec.Struct, array_like=True, gc=False):
    """The budgets of a key or an account, at most one for each window."""

    next_serial: int
    of: list[Budget]


_SECOND: Final = 10**9
_DAY: Final = timedelta(days=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def is_time_zone(name: str) -> bool:
    """Whether this machine knows a time zone by this name."""
    return time_zones.named(name) is not None


def local_time(at: int, time_zone: str) -> str:
    """Return a time in a time zone, in the form of RFC 3339 with whole seconds."""
    zone = time_zones.named(time_zone) or UTC
    return datetime.fromtimestamp(at // _SECOND, zone).isoformat(timespec="seconds")


def bounds(window: Window, time_zone: str, at: int) -> tuple[int, int | None]:
    """Return the start of the window that contains a time, and the start of the next one.

    A time zone that this machine does not know counts as UTC.

    Args:
        window: The window.
        time_zone: The name of the time zone in which days begin.
        at: The time.
    """
    if window is Window.TOTAL:
        return at, None
    zone = time_zones.named(time_zone) or ZoneInfo("UTC")
    first = _first_day(window, datetime.fromtimestamp(at // _SECOND, zone).date())
    after = _next(window, first)
    while _midnight(after, zone) <= at:
        # Clocks that are set back from after midnight to before it repeat the end of a day.
        first, after = after, _next(window, after)
    return _midnight(first, zone), _midnight(after, zone)


def heed_time(budgets: Budgets, now: int) -> bool:
    """Begin the windows that contain `now`, if those of the budgets have passed. Change in place.

    Every reader of stored budgets must do this first.

    Returns:
        Whether anything changed.
    """
    changed = False
    for budget in budgets.of:
        if budget.end is None or budget.start <= now < budget.end:
            continue
        if now >= budget.end:
            budget.start, budget.end = bounds(budget.window, budget.time_zone, now)
            budget.serial = budgets.next_serial
            budgets.next_serial += 1
            budget.spent = budget.held = 0
            changed = True
        elif now < bounds(budget.window, budget.time_zone, budget.start - 1)[0]:
            budget.start, budget.end = bounds(budget.window, budget.time_zone, now)
            changed = True
    return changed


def put(budgets: Budgets | None, window: Window, limit: int, time_zone: str, now: int) -> Budgets:
    """Set the budget of a window. A budget that exists keeps what is spent and held.

    Args:
        budgets: The present budgets, changed in place; None for none.
        window: The window.
        limit: At least 1.
        time_zone: A name that `is_time_zone` knows.
        now: The time.
    """
    budgets = Budgets(1, []) if budgets is None else budgets
    heed_time(budgets, now)
    start, end = bounds(window, time_zone, now)
    for budget in budgets.of:
        if budget.window is window:
            budget.limit = limit
            if budget.time_zone != time_zone:
                budget.time_zone = time_zone
                if window is not Window.TOTAL:
                    budget.start, budget.end = start, end
            return budgets
    budgets.of.append(Budget(window, limit, time_zone, budgets.next_serial, start, end))
    budgets.next_serial += 1
    budgets.of.sort(key=lambda budget: _ORDER.index(budget.window))
    return budgets


def remove(budgets: Budgets, window: Window, now: int) -> None:
    """Remove the budget of a window, if there is one. Change in place."""
    heed_time(budgets, now)
    budgets.of[:] = [budget for budget in budgets.of if budget.window is not window]


def refusing(budgets: Iterable[Budget], amount: int) -> Budget | None:
    """Return the budget that refuses an amount, or None if it fits into all of them.

    Of several, return the one that refuses it for the longest time: one whose spent part leaves too
    little, with the latest end; otherwise the one that has the least left.
    """
    found: Budget | None = None
    spent: Budget | None = None
    for budget in budgets:
        # A call that costs nothing fits, also if the limit is below what is spent.
        if amount <= available(budget):
            continue
        if amount > unspent(budget):
            if spent is None or _ends_later(budget, spent):
                spent = budget
        elif found is None or available(budget) < available(found):
            found = budget
    return spent or found


def unspent(budget: Budget) -> int:
    """Return what is left of a budget when the open holds have ended without a charge."""
    return max(budget.limit - budget.spent, 0)


def available(budget: Budget) -> int:
    """Return what a new hold can have of a budget."""
    return max(budget.limit - budget.spent - budget.held, 0)


def hold(budgets: Budgets | None, amount: int) -> str:
    """Hold an amount in all budgets, and return the serials of their windows."""
    if budgets is None:
        return ""
    for budget in budgets.of:
        budget.held += amount
    return serials(budgets)


def serials(budgets: Budgets | None) -> str:
    """Return the serials of the current windows, separated by commas."""
    return "" if budgets is None else ",".join([str(budget.serial) for budget in budgets.of])


def end(budgets: Budgets | None, counted: str, *, held: int = 0, charge: int = 0) -> None:
    """End a hold, or count its late charge, in those of its windows that are current.

    Args:
        budgets: The budgets.
        counted: The serials of the windows of the hold.
        held: The amount that is not held any more.
        charge: The charge.
    """
    if budgets is None or not counted:
        return
    windows = counted.split(",")
    for budget in budgets.of:
        if str(budget.serial) in windows:
            budget.held -= held
            budget.spent += charge


_ORDER: Final = tuple(Window)


def _ends_later(one: Budget, other: Budget) -> bool:
    return other.end is not None and (one.end is None or one.end > other.end)


def _first_day(window: Window, day: date) -> date:
    if window is Window.WEEK:
        return day - day.weekday() * _DAY
    return day.replace(day=1) if window is Window.MONTH else day


def _next(window: Window, first: date) -> date:
    if window is Window.MONTH:
        return (first + 31 * _DAY).replace(day=1)
    return first + (7 if window is Window.WEEK else 1) * _DAY


def _midnight(day: date, zone: ZoneInfo) -> int:
    """Return the first moment of a day.

    If its midnight is skipped or repeated, that is the change of the clocks, or the first midnight.
    """
    begins = datetime(day.year, day.month, day.day, tzinfo=zone)
    return (begins.astimezone(UTC) - _EPOCH) // timedelta(seconds=1) * _SECOND

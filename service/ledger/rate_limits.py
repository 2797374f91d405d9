"""Limits over time: the generic cell rate algorithm, in integers.

A limit of N per minute is a bucket of N that refills at N per minute. It is stored as one number,
the *theoretical arrival time* (TAT): the time at which the bucket is full again if nothing more is
taken.

    full at TAT -> taking k moves TAT by k·T          T = 60 s / N, in nanoseconds, rounded up
    k fits         if TAT + k·T <= now + N·T

At most N can be taken at once, and in any window of w seconds at most N + N·w/60. Tokens that are
given back count as never taken.

If the clock is set back, the TAT is further ahead than it can be. `within_reach` then replaces it
with that of a bucket that was emptied now, so that the caller waits for one bucket, not until the
clock has caught up.

Source: ITU-T I.371. Times are in nanoseconds.
"""

from typing import Final

import msgspec

MINUTE: Final = 60 * 10**9
"""The window, in nanoseconds."""


class Level(msgspec.Struct, frozen=True, gc=False):
    """How full a bucket is."""

    limit: int
    """The size of the bucket: the limit per minute."""
    remaining: int
    """The number that can be taken now."""
    reset: int
    """Nanoseconds until the bucket is full."""


def interval(limit: int) -> int:
    """Return the nanoseconds for one; `limit` is at least 1."""
    return -(-MINUTE // limit)


def depth(limit: int) -> int:
    """Return the nanoseconds from empty to full: a minute, or slightly more because of rounding."""
    return limit * interval(limit)


def level(limit: int, tat: int, now: int) -> Level:
    """Return the level of the bucket."""
    each = interval(limit)
    full = limit * each
    ahead = min(max(tat - now, 0), full)
    return Level(limit, (full - ahead) // each, ahead)


def take(limit: int, tat: int, now: int, count: int) -> tuple[int, int]:
    """Take from a bucket, or return the wait until that is possible.

    Args:
        limit: The limit per minute, at least 1.
        tat: The current TAT.
        now: The time in nanoseconds.
        count: The number to take, from 0 to `limit`; more never fits.

    Returns:
        The new TAT and 0; or the current TAT and the nanoseconds to wait.
    """
    each = interval(limit)
    full = limit * each
    ahead = min(max(tat - now, 0), full) + count * each
    return (tat, ahead - full) if ahead > full else (now + ahead, 0)


def give_back(limit: int, tat: int, now: int, count: int, taken_at: int) -> int:
    """Return the TAT after giving back `count` that were taken at `taken_at`.

    The bucket has refilled since then, which already covers a part of them. Giving all back would
    let long calls without usage save up more than a bucket. If the clock was set back since then,
    the refill is unknown: nothing is given back, and the bucket is full after a minute anyway.
    """
    owed = count * interval(limit) - (now - taken_at) if taken_at <= now else 0
    return within_reach(limit, tat, now) - max(owed, 0)


def within_reach(limit: int, tat: int, now: int) -> int:
    """Return the TAT, or that of a bucket emptied now if the clock was set back."""
    return min(tat, now + depth(limit))

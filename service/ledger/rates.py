"""Limits over time: the generic cell rate algorithm, in integers.

A limit of N per minute is a bucket of N that refills at N per minute. It is kept as one number, the
*theoretical arrival time* (TAT): when the bucket would be full again if nothing more came.

    full at TAT ──► taking k moves TAT by k·T          T = 60 s / N, in nanoseconds, rounded up
    k fits          while TAT + k·T <= now + N·T

So at most N are taken at once, and in any window of w seconds at most N + N·w/60. What is given
back counts as not taken, at the time when it was taken.

A clock that was set back leaves the TAT further ahead than a bucket can be: it counts as a bucket
that was emptied just now, and whoever writes the TAT makes it one with `within_reach`, so that such
a caller waits for one bucket and not until the clock is where it was.

Source: ITU-T I.371, as restated for request limits by many; times in nanoseconds.
"""

from typing import Final

import msgspec

MINUTE: Final = 60 * 10**9
"""The window, in nanoseconds."""


class Level(msgspec.Struct, frozen=True, gc=False):
    """How full a bucket is."""

    limit: int
    """Its size: how many per minute."""
    remaining: int
    """How many could be taken now."""
    reset: int
    """Nanoseconds until it is full."""


def interval(limit: int) -> int:
    """Return the nanoseconds for one; `limit` is at least 1."""
    return -(-MINUTE // limit)


def depth(limit: int) -> int:
    """Return the nanoseconds from empty to full: a minute, or a little more by the rounding."""
    return limit * interval(limit)


def level(limit: int, tat: int, now: int) -> Level:
    """Return how full the bucket is."""
    each = interval(limit)
    full = limit * each
    ahead = min(max(tat - now, 0), full)
    return Level(limit, (full - ahead) // each, ahead)


def take(limit: int, tat: int, now: int, count: int) -> tuple[int, int]:
    """Take from a bucket, or say when that will be possible.

    Args:
        limit: How many per minute, at least 1.
        tat: The TAT so far.
        now: The time, in nanoseconds.
        count: How many, at least 0 and at most `limit`: more never fits.

    Returns:
        The new TAT and 0; or the old one and the nanoseconds to wait.
    """
    each = interval(limit)
    full = limit * each
    ahead = min(max(tat - now, 0), full) + count * each
    return (tat, ahead - full) if ahead > full else (now + ahead, 0)


def give_back(limit: int, tat: int, now: int, count: int, taken_at: int) -> int:
    """Return the TAT after `count` that were taken at a time were not needed.

    What the bucket has refilled since then has made good for a part of them already: giving them
    back whole would let calls that took long, and used nothing, save up more than a bucket. Where
    the clock was set back since, how much that was is not known: nothing is given back, and the
    bucket is full a minute later all the same.
    """
    owed = count * interval(limit) - (now - taken_at) if taken_at <= now else 0
    return within_reach(limit, tat, now) - max(owed, 0)


def within_reach(limit: int, tat: int, now: int) -> int:
    """Return the TAT, or that of a bucket emptied now where the clock was set back."""
    return min(tat, now + depth(limit))

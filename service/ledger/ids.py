"""The ids of holds: random, in the order of their creation.

    0185d2e4c3a0f1b2 9f86d081884c7d65      16 hex digits of nanoseconds, 16 random ones

Holds that are created together are adjacent in the store, so that a batch writes one or two pages
instead of one per hold. An id is not secret; its random half distinguishes processes that create
ids in the same nanosecond. UUIDs of version 7 (RFC 9562) have the same structure.
"""

from process.randomness import sixteen


def hold_id(now: int) -> str:
    """Return a new id of a hold.

    Args:
        now: Nanoseconds since the Unix epoch, at least 0.
    """
    return f"{now:016x}{sixteen()[:8].hex()}"


def first_at(now: int) -> str:
    """Return a lower bound of the ids that are created at this time or later."""
    return f"{now:016x}"

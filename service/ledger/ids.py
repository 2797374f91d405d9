"""The ids of holds: random, and in the order of their making.

    0185d2e4c3a0f1b2 9f86d081884c7d65      16 hex digits of nanoseconds, 16 of chance

Holds that are made together stand together in the store, so that a batch writes a page or two and
not one for each hold. An id is no secret; its random half keeps processes apart that make theirs in
the same nanosecond. The idea is that of UUIDs of version 7 (RFC 9562).
"""

from process.randomness import sixteen


def hold_id(now: int) -> str:
    """Make the id of a hold.

    Args:
        now: Nanoseconds since the Unix epoch, at least 0.
    """
    return f"{now:016x}{sixteen()[:8].hex()}"


def first_at(now: int) -> str:
    """Return what is less than every id that is made at this time or later, and no earlier one."""
    return f"{now:016x}"

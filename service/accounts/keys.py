"""API keys: made, digested, remembered for a moment.

    sk-live-<43 characters>     256 random bits; shown once, stored as a SHA-256 digest only

A key is found by its digest: no prefix of it is compared, no part of it is stored. What a lookup
found is remembered for at most five seconds, so that a flood with one key, right or wrong, does not
become a flood of queries. A revocation takes effect at once all the same: each request that costs
something reads the key's row in the transaction of its hold.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LIVE_PREFIX: Final = "sk-live-"
REMEMBERED: Final = 5.0
"""Seconds that a lookup is remembered."""

_MOST_REMEMBERED: Final = 10_000
_KEY_BYTES: Final = 32


def make() -> str:
    """Make an API key."""
    return LIVE_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def digest(key: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who holds a key."""

    account_id: int
    account_name: str
    key_id: int
    key_name: str
    is_limited: bool = False
    """Whether the key has a limit per minute."""


class Remembered:
    """What lookups found, for a moment; None is remembered too.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._found: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()

    def get(self, key_digest: bytes) -> tuple[bool, Caller | None]:
        """Return whether a lookup is remembered, and what it found."""
        entry = self._found.get(key_digest)
        if entry is None or entry[0] <= self._clock():
            return False, None
        return True, entry[1]

    def put(self, key_digest: bytes, caller: Caller | None) -> None:
        """Remember what a lookup found."""
        self._found.pop(key_digest, None)
        while len(self._found) >= _MOST_REMEMBERED:
            self._found.popitem(last=False)
        self._found[key_digest] = (self._clock() + REMEMBERED, caller)

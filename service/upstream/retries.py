"""When a request is sent to the upstream again: at most once.

And never where the upstream may have worked for it:

    could not connect               once more, after up to 100 ms
    429, 503 with a Retry-After     once more, after that wait, where it fits
    a fault of our account          never, whatever its status
    anything else                   never

All within a budget of a fifth of the requests: an upstream in trouble is not given more to do.
"""

from dataclasses import dataclass
from typing import Final

_SHARE: Final = 0.2
_LARGEST: Final = 10.0
_JITTER: Final = 0.1
"""Seconds."""


@dataclass(slots=True)
class RetryBudget:
    """How many retries the recent requests have earned: each a fifth, ten at the most."""

    balance: float = _LARGEST

    def earn(self) -> None:
        """Count a request."""
        self.balance = min(self.balance + _SHARE, _LARGEST)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self.balance < 1:
            return False
        self.balance -= 1
        return True


def delay(asked: float, *, remaining: float, longest: float, random: float) -> float | None:
    """Return how long to wait before the retry, in seconds, or None where there is none.

    Args:
        asked: The upstream's Retry-After in seconds; 0 where it could not be reached.
        remaining: Seconds until the call's deadline.
        longest: The longest Retry-After that is waited out, in seconds.
        random: From 0 to 1, for the jitter.
    """
    if asked > longest:
        return None
    wait = asked + random * _JITTER
    return wait if wait < remaining else None

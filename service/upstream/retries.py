"""When the service sends a request to the upstream again: at most once.

It never does if the upstream may have started to generate:

    could not connect               once more, after up to 100 ms
    429, 503, 529 with Retry-After  once more after that wait, if it fits
    503, 529 without                once more, after half a second
    an account fault                never, with any status
    anything else                   never

The budget is a fifth of the requests, so that retries do not overload an upstream in trouble.
"""

from dataclasses import dataclass
from typing import Final

_SHARE: Final = 0.2
_LARGEST: Final = 10.0
_JITTER: Final = 0.1
"""Seconds."""


@dataclass(slots=True)
class RetryBudget:
    """The number of retries that recent requests have earned: a fifth each, up to ten."""

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
    """Return the wait before the retry in seconds, or None for no retry.

    Args:
        asked: The upstream's Retry-After in seconds; 0 if it could not be reached.
        remaining: Seconds until the call's deadline.
        longest: Maximum Retry-After in seconds; after a longer one, there is no retry.
        random: A number from 0 to 1, for the jitter.
    """
    if asked > longest:
        return None
    wait = asked + random * _JITTER
    return wait if wait < remaining else None

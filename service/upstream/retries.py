"""When the service sends a request to the upstream again: at most once.

It never does if the upstream may have started to generate:

    could not connect               once more, after up to 100 ms
    429, 503, 529 with Retry-After  once more after that wait, if it fits
    503, 529 without                once more, after half a second
    an idle connection was lost     once more, on a new one, beside the budget
    an account fault                never with the same key
    anything else                   never

If the model has another upstream, the retry goes to that one instead, at once, if the upstream
could not be reached or refused the request with 429, 503 or 529: it did no work then. If it refused
the service's key, the retry has another key or goes to another upstream.

The budget is a fifth of the requests, so that retries do not overload an upstream in trouble.
"""

from dataclasses import dataclass
from typing import Final

from service import errors

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


def asked(failure: errors.Failure, busy: float) -> float | None:
    """Return the wait in seconds before the same upstream can get a request again, or None.

    Args:
        failure: The failure of the request.
        busy: The wait for a busy upstream that asked for none.
    """
    if isinstance(failure, errors.UpstreamUnavailable):
        is_busy = failure.report is not None and failure.report.cause == "busy"
        return failure.retry_after or (busy if is_busy else 0.0)
    if failure.retry_after is not None:
        return failure.retry_after
    return 0.0 if failure.lost_idle else None


def moves(failure: errors.Failure) -> bool:
    """Return whether a request can go to another upstream, because the first did no work."""
    if failure.refuses_key:
        return True
    did_nothing = isinstance(failure, errors.UpstreamUnavailable | errors.UpstreamRateLimited)
    return did_nothing and not failure.dispatched


def delay(asked: float | None, *, remaining: float, longest: float, random: float) -> float | None:
    """Return the wait before the retry in seconds, or None for no retry.

    Args:
        asked: The result of `asked`.
        remaining: Seconds until the call's deadline.
        longest: Maximum Retry-After in seconds; after a longer one, there is no retry.
        random: A number from 0 to 1, for the jitter.
    """
    if asked is None or asked > longest:
        return None
    wait = asked + random * _JITTER
    return wait if wait < remaining else None

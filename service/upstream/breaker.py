"""The breaker of an upstream: whether it gets calls. Pure: the time is passed in.

    closed      every call goes through
                -> open, after some consecutive failures, or if half of the last 20 calls failed
    open        no call goes through
                -> half open, at the first call after the pause
    half open   one call at a time goes through, the probe
                -> closed, if the upstream answered it, also with a refusal
                -> open, if it failed

A call that began before the last change of the state does not change it.

Some requests make a healthy upstream fail. While other accounts are served, at most 3 of the last
20 calls count as failures of one account that the upstream answered, so that no account alone opens
the breaker for all.
"""

import math
from collections.abc import Callable
from typing import Final

from service.upstream.verdicts import Verdict
from service.upstream_report import BreakerState

WINDOW: Final = 20
"""The number of the last calls of which half must not fail."""
MOST_OF_ONE: Final = 3
"""The number of failures of one account that count, while other accounts are served."""
MEMORY: Final = 60.0
"""Seconds for which a call that was served says that other accounts are served."""
_COUNTED: Final = frozenset({"served", "failed", "broke"})
_FAILURES: Final = frozenset({"failed", "broke"})
_ALL: Final = (1 << WINDOW) - 1
_PROBE_ENDS: Final = 1.0
"""Seconds after which another call can try its luck while a probe runs."""


class Breaker:
    """The breaker of one upstream.

    Args:
        failures: The number of consecutive failures that open it, up to 20; 0 for a breaker that
            never opens.
        pause: Seconds from the opening to the first probe.
        changed: Receives each new state.
    """

    def __init__(
        self, *, failures: int, pause: float, changed: Callable[[BreakerState], object]
    ) -> None:
        self._consecutive = (1 << failures) - 1
        self._pause = pause
        self._changed = changed
        self._bits = 0
        """The last calls, the latest in the lowest bit: 1 for a failure."""
        self._count = 0
        """How many calls the bits are of, up to `WINDOW`."""
        self._epoch = 0
        """The number of changes of the state."""
        self._opened = 0.0
        self._probing = False
        self._number = 0
        """The number of counted calls."""
        self._broke: list[tuple[int, str]] = []
        """The number and the account of each counted failure that the upstream answered."""
        self._served: tuple[str, float] = ("", -math.inf)
        """The account and the time of the last call that was served."""
        self._served_before = self._served
        """The same of the last one of another account."""
        self.state: BreakerState = "closed"
        """An open breaker is half open only when a call comes after the pause."""

    def wait(self, now: float) -> float:
        """Return the seconds until a call can go through; 0 if one can now."""
        if self.state == "closed":
            return 0.0
        if self.state == "open":
            return max(self._opened + self._pause - now, 0.0)
        return _PROBE_ENDS if self._probing else 0.0

    def enter(self) -> int:
        """Let a call through, for which `wait` returned 0. Return its permit, for `end`."""
        if self.state != "closed":
            if self.state == "open":
                self._change("half_open")
            self._probing = True
        return self._epoch

    def is_probe(self, permit: int) -> bool:
        """Return whether a call with this permit is the probe."""
        return self.state == "half_open" and permit == self._epoch

    def end(self, permit: int, verdict: Verdict, now: float, account: str = "") -> None:
        """Count a call that ended, or a probe whose response began.

        Args:
            permit: The permit of the call.
            verdict: What the call says about the upstream.
            now: The time in seconds.
            account: The account of the caller; "" if it is not known.
        """
        if verdict == "served" and account:
            if account != self._served[0]:
                self._served_before = self._served
            self._served = account, now
        if permit != self._epoch:
            return
        if self.state == "half_open":
            self._probing = False
            if verdict in _FAILURES:
                self._open(now)
            elif verdict != "unknown":
                self._change("closed")
        elif verdict in _COUNTED and not (verdict == "broke" and self._spares(account, now)):
            failed = verdict in _FAILURES
            self._number += 1
            self._bits = ((self._bits << 1) | failed) & _ALL
            if self._count < WINDOW:
                self._count += 1
            if failed and self._consecutive and self._fails():
                self._open(now)

    def _spares(self, account: str, now: float) -> bool:
        """Return whether a failure of this account, which the upstream answered, does not count."""
        other, at = self._served if self._served[0] != account else self._served_before
        first = self._number - WINDOW
        self._broke = [each for each in self._broke if each[0] > first]
        is_served = bool(other) and now - at <= MEMORY
        if is_served and sum(each[1] == account for each in self._broke) >= MOST_OF_ONE:
            return True
        self._broke.append((self._number + 1, account))
        return False

    def _fails(self) -> bool:
        if self._bits & self._consecutive == self._consecutive:
            return True
        return self._count == WINDOW and 2 * self._bits.bit_count() >= WINDOW

    def _open(self, now: float) -> None:
        self._opened = now
        self._change("open")

    def _change(self, state: BreakerState) -> None:
        self._epoch += 1
        self._bits = self._count = 0
        self._broke = []
        self.state = state
        self._changed(state)

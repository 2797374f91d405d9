"""What limits per minute allow, at most and at least."""

from dataclasses import dataclass, field

from service.ledger.rate_limits import MINUTE
from tests.contract.accounts_machine.checks import check


@dataclass(slots=True)
class Taking:
    """The amount that a hold took from a limit, minus the returned part, and the time."""

    at: int
    count: int
    is_final: bool = False


@dataclass(slots=True)
class Passage:
    """The maximum that was taken in any window, minus the refill of the limit in it.

    For a limit of N and windows from one taking to a later one, each window of w seconds must have
    taken no more than N + N·w/60. The window that is worst so far either goes on or begins anew: so
    one number tells of all of them. It is exact: nanoseconds times N, tokens times a minute.

    Returned tokens change the past. The number covers the final takings; the takings from the first
    that is not final are evaluated each time.
    """

    limit: int
    worst: int = 0
    at: int = 0
    takings: list[Taking] = field(default_factory=list)

    def begin_anew(self) -> None:
        """Reset: the clock was set back, so that earlier times are not comparable."""
        self.worst, self.at = 0, 0
        self.takings.clear()

    def take(self, count: int, now: int) -> Taking:
        """Take tokens, and evaluate every window that ends now."""
        taking = Taking(now, count)
        self.takings.append(taking)
        worst, at = self.worst, self.at
        for one in self.takings:
            worst, at = max(worst - self.limit * (one.at - at), 0) + one.count * MINUTE, one.at
        check(worst <= self.limit * MINUTE, f"above {self.limit} per minute at {now}")
        return taking

    def end(self, taking: Taking, unused: int) -> None:
        """Return the unused tokens. The rest is final."""
        taking.count -= unused
        taking.is_final = True
        done = next((n for n, one in enumerate(self.takings) if not one.is_final), None)
        for one in self.takings[:done]:
            passed = self.limit * (one.at - self.at)
            self.worst, self.at = max(self.worst - passed, 0) + one.count * MINUTE, one.at
        del self.takings[:done]


@dataclass(slots=True)
class Bucket:
    """The minimum that a limit guarantees: a request within it must not be rejected.

    An interval in whole nanoseconds makes one cost up to a nanosecond more than it should. Here
    each costs a whole one more, so that whatever fits here fits there.
    """

    limit: int
    level: int = 0
    at: int = 0

    def refill(self, now: int) -> None:
        """Let time pass. If the clock was set back, the bucket can be empty."""
        if now < self.at:
            self.level = 0
        else:
            self.level = min(self.level + self.limit * (now - self.at), self.limit * self._cost)
        self.at = now

    def take(self, count: int) -> None:
        """Take."""
        self.level -= count * self._cost

    def give_back(self, count: int, elapsed: int) -> None:
        """Return tokens that were taken some time ago, minus the refill since then."""
        if elapsed < 0:
            return  # the clock was set back, so the refill is unknown
        back = max(count * self._cost - self.limit * elapsed, 0)
        self.level = min(self.level + back, self.limit * self._cost)

    def has(self, count: int) -> bool:
        """Whether `count` fits."""
        return self.level >= count * self._cost

    @property
    def _cost(self) -> int:
        """Return the cost of one, in nanoseconds times the limit."""
        return MINUTE + self.limit

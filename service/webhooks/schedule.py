"""When events are sent: pure functions, without clock and I/O.

status 2xx             -> delivered
410                    -> dead: the receiver wants no more
anything else          -> again after a pause, until it is too often or too late, then dead
nothing else succeeds  -> the receiver is in trouble: all events pause
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from service.ledger.outbox import Closing, Outgoing

SECOND: Final = 10**9

FIRST_PAUSE: Final = 5 * SECOND
LONGEST_PAUSE: Final = 3600 * SECOND
"""The longest pauses after the first attempt, and after any."""
MOST_ATTEMPTS: Final = 100
LONGEST_BREAK: Final = 60 * SECOND
"""The longest pause of all events."""

GONE: Final = 410


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver replied."""

    status: int = 0
    """The HTTP status; 0 for none."""
    failure: str = ""
    """Why there is none, for operators: such as "timeout"."""
    retry_after: int = 0
    """The pause in nanoseconds that the receiver asked for; 0 for none."""

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has the event."""
        return 200 <= self.status <= 299

    @property
    def is_trouble(self) -> bool:
        """Whether the receiver, and not the event, is the cause of the failure."""
        return self.status in {0, 429} or self.status >= 500


def closing(event: Outgoing, reply: Reply, now: int, *, longest: int, random: float) -> Closing:
    """Return the result of an attempt.

    Args:
        event: The event.
        reply: What the receiver replied.
        now: The time.
        longest: The age at which an event is dead.
        random: From 0 to 1. Pauses vary, so that events do not return all at once.
    """
    if reply.is_delivered:
        return Closing(id=event.id, attempts=event.attempts)
    failure = f"HTTP {reply.status}" if reply.status else reply.failure
    again: int | None = max(pause(event.attempts, random), min(reply.retry_after, LONGEST_PAUSE))
    if reply.status == GONE or event.attempts >= MOST_ATTEMPTS or now - event.since >= longest:
        again = None
    return Closing(id=event.id, attempts=event.attempts, failure=failure, again_in=again)


def unsent(event: Outgoing) -> Closing:
    """Return the result for an event that was claimed and not sent."""
    return Closing(id=event.id, attempts=event.attempts, unsent=True)


def pause(attempts: int, random: float) -> int:
    """Return the pause after an attempt: any part of a limit that doubles with each attempt.

    Args:
        attempts: The number of attempts, at least 1.
        random: From 0 to 1.
    """
    return int(min(FIRST_PAUSE << min(attempts - 1, 32), LONGEST_PAUSE) * random)


def lanes(events: Iterable[Outgoing]) -> list[list[Outgoing]]:
    """Return the events of each account, in their order. Those of one account wait for another."""
    found: dict[str, list[Outgoing]] = {}
    for event in events:
        found.setdefault(event.account, []).append(event)
    return list(found.values())


class Break:
    """The pause of all events while the receiver is in trouble."""

    def __init__(self) -> None:
        self._rounds = 0
        """How many rounds in a row delivered nothing."""

    def after(self, replies: Sequence[Reply], random: float) -> int:
        """Return the pause after a round in nanoseconds: 0 unless every reply was trouble.

        Args:
            replies: The replies of the round.
            random: From 0 to 1.
        """
        if not replies:
            return 0
        if not all(reply.is_trouble for reply in replies):
            self._rounds = 0
            return 0
        self._rounds = min(self._rounds + 1, 32)
        return int(min(SECOND << self._rounds, LONGEST_BREAK) * (0.5 + random / 2))

    @property
    def is_probing(self) -> bool:
        """Whether the next round sends one event only, to see whether the trouble is over."""
        return self._rounds > 0

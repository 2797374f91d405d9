"""What the state machine of accounts expects of events: each entry's usage, each threshold once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from service.ledger.rows import Account, Entry, EntryKind, Event, EventKind, Key

THRESHOLDS: Final = (1, 50, 80, 100)


Spent = dict[tuple[str, int, str], tuple[int, int, int, int | None]]
"""The serial, the limit, what is spent and the end, of each key or account and window."""


def spent(accounts: Iterable[Account], keys: Iterable[Key]) -> Spent:
    """Return what is spent of each budget."""
    return {
        (of, row.id, str(budget.window)): (budget.serial, budget.limit, budget.spent, budget.end)
        for of, rows in (("account", accounts), ("key", keys))
        for row in rows
        if row.budgets is not None
        for budget in row.budgets.of
    }


def wrong_budgets(before: Spent, after: Spent, events: Sequence[Event], now: int) -> str:
    """Compare the thresholds of budgets with what a transaction spent in windows of the present.

    Args:
        before: What was spent before it.
        after: What is spent after it.
        events: Its events.
        now: The time of the transaction.

    Returns:
        What is wrong; "" for nothing.
    """
    expected = set()
    for (of, id_, window), (serial, limit, spent_now, end) in after.items():
        if end is not None and end <= now:
            continue
        former, _, then, _ = before.get((of, id_, window), (0, 0, 0, None))
        begun = then if former == serial else 0
        for percent in THRESHOLDS:
            if Fraction(begun, limit) < Fraction(percent, 100) <= Fraction(spent_now, limit):
                expected.add((of, id_, window, percent))
    told = [
        (
            *(("account", event.account_id) if event.key_id is None else ("key", event.key_id)),
            *(event.window, event.percent),
        )
        for event in events
        if event.kind is EventKind.BUDGET_THRESHOLD
    ]
    return "" if set(told) == expected and len(told) == len(expected) else f"{told}, not {expected}"


@dataclass(slots=True)
class _Credit:
    """The credit of an account since credit was last added."""

    balance: int = 0
    whole: int = 0
    crossed: set[int] = field(default_factory=set)


@dataclass(slots=True)
class ToldEvents:
    """The events that entries should have, in their order."""

    _accounts: dict[int, _Credit] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set)

    def follow(self, entries: Sequence[Entry], events: Sequence[Event]) -> str:
        """Compare the events of a transaction with its entries, and return what is wrong.

        Args:
            entries: The entries of the transaction.
            events: Its events.

        Returns:
            What is wrong; "" for nothing.
        """
        expected = [told for entry in entries for told in self._of(entry)]
        seen = [
            (event.kind, event.hold_id, event.percent, event.remaining)
            for event in events
            if event.kind is not EventKind.BUDGET_THRESHOLD
        ]
        ids = {event.event_id for event in events}
        if len(ids) < len(events) or ids & self._ids:
            return f"an id of {events} was used before"
        self._ids |= ids
        if any(event.event_id != event.hold_id for event in events if event.percent is None):
            return f"the id of a usage event in {events} is not its hold"
        return "" if seen == expected else f"{events} instead of {expected}"

    def _of(self, entry: Entry) -> list[tuple[EventKind, str | None, int | None, int | None]]:
        found: list[tuple[EventKind, str | None, int | None, int | None]] = []
        if entry.kind in (EntryKind.SETTLE, EntryKind.ADJUST):
            found.append((EventKind.USAGE, entry.hold_id, None, None))
        credit = self._accounts.setdefault(entry.account_id, _Credit())
        credit.balance += entry.amount
        if entry.kind is EntryKind.GRANT:
            self._accounts[entry.account_id] = _Credit(credit.balance, credit.balance)
            return found
        if credit.whole:
            used = Fraction(credit.whole - credit.balance, credit.whole)
            for percent in THRESHOLDS:
                if percent not in credit.crossed and used >= Fraction(percent, 100):
                    credit.crossed.add(percent)
                    kind = EventKind.CREDIT_THRESHOLD
                    found.append((kind, entry.hold_id, percent, credit.balance))
        return found

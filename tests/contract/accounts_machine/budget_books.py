"""What budgets allow: each keeps the holds of its window, and counts them anew.

A window is known by its label: the number of its day, its week or its month in the calendar of its
time zone. The next window has a larger label.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from service.ledger.budgets import Window
from service.ledger.rows import Exceeded, HoldState, Place, Refusal, Refused
from tests.contract.accounts_machine.cast import SECOND, Scope
from tests.contract.accounts_machine.checks import check
from tests.contract.accounts_machine.rates import Taking

BY_BUDGETS: Final = (Refusal.BUDGET, Refusal.BUDGET_HELD)
WINDOWS: Final = (Window.DAY, Window.WEEK, Window.MONTH, Window.TOTAL)


@dataclass(slots=True, eq=False)
class Fact:
    """The expected state of a hold that was placed."""

    place: Place
    lease_until: int
    end: HoldState = HoldState.OPEN
    tokens: Taking | None = None
    """The tokens taken from the limit of tokens, if the key has one."""
    settled: bool = False
    """The charge, in time or late."""
    charged: int = 0
    prices_from: int | None = None
    """The time of the prices of the charge."""


def label(window: Window, zone: str, at: int) -> int:
    """Return the number of the window that contains a time."""
    day = datetime.fromtimestamp(at // SECOND, ZoneInfo(zone)).date()
    match window:
        case Window.DAY:
            return day.toordinal()
        case Window.WEEK:
            return (day.toordinal() - 1) // 7  # the first day of the year 1 was a Monday
        case Window.MONTH:
            return day.year * 12 + day.month
    return 0


@dataclass(slots=True, eq=False)
class BudgetBook:
    """A budget, and the holds that were placed in its current window."""

    window: Window
    limit: int
    zone: str
    label: int
    facts: list[Fact] = field(default_factory=list)

    def heed(self, now: int) -> None:
        """Turn the page if the window has passed."""
        today = label(self.window, self.zone, now)
        if today > self.label:
            self.facts = []
        if not self.label - 1 <= today <= self.label:
            self.label = today

    @property
    def spent(self) -> int:
        return sum(fact.charged for fact in self.facts if fact.settled)

    @property
    def held(self) -> int:
        return sum(fact.place.amount for fact in self.facts if fact.end is HoldState.OPEN)

    @property
    def unspent(self) -> int:
        return max(self.limit - self.spent, 0)

    @property
    def free(self) -> int:
        return max(self.limit - self.spent - self.held, 0)


@dataclass(slots=True)
class BudgetBooks:
    """The budgets of all keys and accounts."""

    of: dict[Scope, dict[Window, BudgetBook]] = field(default_factory=dict)

    def set(self, scope: Scope, window: Window, limit: int, zone: str, now: int) -> None:
        """Set a budget, or remove it with a limit of 0."""
        books = self.of.setdefault(scope, {})
        for book in books.values():
            book.heed(now)
        if limit == 0:
            books.pop(window, None)
        elif window not in books:
            books[window] = BudgetBook(window, limit, zone, label(window, zone, now))
        else:
            known = books[window]
            known.limit = limit
            if known.zone != zone:
                known.zone, known.label = zone, label(window, zone, now)

    def binding(self, scopes: Sequence[Scope], now: int) -> list[tuple[Scope, BudgetBook]]:
        """Return the budgets of some keys and accounts at a time, in order."""
        found = list(self._binding(scopes))
        for _, book in found:
            book.heed(now)
        return found

    def _binding(self, scopes: Sequence[Scope]) -> Iterator[tuple[Scope, BudgetBook]]:
        for scope in scopes:
            books: Mapping[Window, BudgetBook] = self.of.get(scope, {})
            yield from ((scope, books[window]) for window in WINDOWS if window in books)


def refused(
    binding: Sequence[tuple[Scope, BudgetBook]], amount: int, balance: int, held: int
) -> Refused | None:
    """Return the rejection of an amount by the balance or a budget, without a budget's end."""
    books = [book for _, book in binding]
    in_time = min([balance, *(book.unspent for book in books)])
    at_once = min([balance - held, *(book.free for book in books)])
    if amount > balance:
        return Refused(refusal=Refusal.CREDIT, available=in_time)
    if any(amount > book.unspent for book in books):
        return Refused(refusal=Refusal.BUDGET, available=in_time)
    if amount > balance - held:
        return Refused(refusal=Refusal.HELD, available=at_once)
    if any(amount > book.free for book in books):
        return Refused(refusal=Refusal.BUDGET_HELD, available=at_once)
    return None


def follow(outcome: Refused, binding: Sequence[tuple[Scope, BudgetBook]], amount: int) -> Refused:
    """Check the budget that a rejection names, and return the rejection without it."""
    told = outcome.budget
    check(told is not None, f"{outcome} names no budget")
    assert told is not None
    for (of, id_), book in binding:
        if book.window is told.window and told.account_id == (id_ if of == "account" else None):
            _is_same(told, book)
            is_spent = amount > book.unspent
            check(is_spent == (outcome.refusal is Refusal.BUDGET), f"{told} is another's reason")
            check(amount > book.free, f"{told} has enough")
            if is_spent:
                _ends_last(told, binding, amount)
            else:
                check(book.free == min(b.free for _, b in binding), f"{told}: another has less")
            return replace(outcome, budget=None)
    check(False, f"{told} does not bind this key")
    return outcome


def _is_same(told: Exceeded, book: BudgetBook) -> None:
    numbers = told.limit, told.spent, told.held, told.time_zone
    check(numbers == (book.limit, book.spent, book.held, book.zone), f"{told}, not {book}")
    if book.window is Window.TOTAL:
        check(told.end is None, f"{told} ends")
    else:
        check(told.end is not None and _is_end(book, told.end), f"{told} ends at another time")


def _is_end(book: BudgetBook, end: int) -> bool:
    last, next_ = (label(book.window, book.zone, at) for at in (end - 1, end))
    return last == book.label and next_ > book.label


def _ends_last(told: Exceeded, binding: Sequence[tuple[Scope, BudgetBook]], amount: int) -> None:
    """Check that every other budget that is spent, too, has its next window by then."""
    if told.end is None:
        return
    for _, book in binding:
        if amount > book.unspent:
            later = label(book.window, book.zone, told.end) > book.label
            check(later, f"{told} ends before {book}")

"""The rules of the machine, and what must hold after each of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import datetime, time, timedelta
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from service.ledger import budgets
from service.ledger.budgets import Window
from service.ledger.rows import (
    Ended,
    EntryKind,
    Expire,
    Grant,
    Granted,
    HoldState,
    Operation,
    Outcome,
    Place,
    Placed,
    Refusal,
    Refused,
    Settle,
)
from tests.contract.accounts_machine.budget_books import WINDOWS
from tests.contract.accounts_machine.cast import (
    BEGINNING,
    HOUR,
    KEYS,
    LONGEST_LEASE,
    PAYERS,
    PROCESSES,
    SCOPES,
    SECOND,
    ZONES,
    Scope,
    parents,
)
from tests.contract.accounts_machine.checks import check
from tests.contract.accounts_machine.drawing import OPERATION_BYTES, Drawing, batches
from tests.contract.accounts_machine.specification import Specification
from tests.contract.accounts_machine.tables import Tables

ROUNDS: Final = 60
"""Rules of a machine."""
STEPS_OF_A_MACHINE: Final = 400
"""Operations of a machine, at least on average. Hypothesis also draws constants that it finds in
imported modules, so that the average is 446 among the faults, and 650 with this module alone."""


_BUDGETS: Final = st.tuples(
    st.sampled_from(SCOPES),
    st.sampled_from(WINDOWS),
    st.sampled_from([0, 300, 2_000, 6_000, 12_000, 40_000]),
    st.sampled_from(ZONES),
)
"""The key or account, the window, the limit (0 to remove it) and the time zone of a budget."""


class AccountsMachine(RuleBasedStateMachine):
    """Processes that place and end holds, an operator, a reaper, and failures."""

    seen: ClassVar[Counter[str]] = Counter()
    """The outcomes of the operations of all machines."""
    tables: ClassVar[Callable[[], Tables]] = staticmethod(Tables)
    """Returns the tables for a machine, empty."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGINNING
        self.database = AccountsMachine.tables()
        self.specification = Specification(self.database)
        self.drawing = Drawing(lambda: self.database.keys, lambda: self.specification.facts)
        self.is_sound = True

    @initialize(
        amount=st.sampled_from([0, 5_000, 50_000, 200_000]),
        given=st.lists(_BUDGETS, max_size=6),
    )
    def begin(self, amount: int, given: Sequence[tuple[Scope, Window, int, str]]) -> None:
        """Each account that pays has some credit, and some budgets are set."""
        for budget in given:
            self.set_budget(budget)
        self._apply([Grant(account_id=id_, amount=amount, idempotency_id="0") for id_ in PAYERS])

    @rule(batch=batches())
    def work(self, batch: bytes) -> None:
        """Operations arrive together."""
        self._apply(
            [
                self.drawing.operation(*batch[start : start + OPERATION_BYTES])
                for start in range(0, len(batch), OPERATION_BYTES)
            ]
        )

    @rule(batch=batches(), seconds=st.integers(0, 70))
    def work_later(self, batch: bytes, seconds: int) -> None:
        """The same after a while."""
        self.now += seconds * SECOND + batch[0]
        self.work(batch)

    @rule(
        nanoseconds=st.one_of(
            st.integers(0, 2 * LONGEST_LEASE),
            st.integers(1, 40 * 24).map(lambda hours: hours * HOUR),
        ),
        midnight_in=st.sampled_from([None, None, *ZONES]),
    )
    def wait(self, nanoseconds: int, midnight_in: str | None) -> None:
        """Time passes: a while, some days, or until about midnight in a time zone."""
        self.now += nanoseconds
        if midnight_in is not None:
            today = datetime.fromtimestamp(self.now // SECOND, ZoneInfo(midnight_in)).date()
            tomorrow = datetime.combine(today, time(), ZoneInfo(midnight_in)) + timedelta(days=1)
            self.now = max(self.now, int(tomorrow.timestamp()) * SECOND + nanoseconds % 3 - 1)

    @rule(budget=_BUDGETS)
    def set_budget(self, budget: tuple[Scope, Window, int, str]) -> None:
        """An operator sets, changes or removes a budget."""
        scope, window, limit, zone = budget
        of, id_ = scope
        row = self.database.accounts[id_] if of == "account" else self.database.keys[id_]
        changed = deepcopy(row.budgets)
        if limit:
            changed = budgets.put(changed, window, limit, zone, self.now)
        elif changed is not None:
            budgets.remove(changed, window, self.now)
        self.database.change(scope, budgets=changed)
        self.specification.budgets.set(scope, window, limit, zone, self.now)

    @rule(seconds=st.integers(-3600, 3600))
    def set_clock(self, seconds: int) -> None:
        """The store's clock is set."""
        self.now += seconds * SECOND
        if seconds < 0:
            self.specification.note_clock_set_back()

    @rule()
    def reap(self) -> None:
        """Every expired hold ends."""
        self._apply(self._expired())

    @rule(number=st.integers(0, PROCESSES - 1))
    def crash(self, number: int) -> None:
        """A process loses its holds and their outcomes."""
        self.drawing.processes[number].holds.clear()

    @rule(key_id=st.sampled_from([key.id for key in KEYS]))
    def revoke(self, key_id: int) -> None:
        """An operator revokes a key, or makes a revoked key valid again."""
        was = self.database.keys[key_id].revoked_at
        self.database.change(("key", key_id), revoked_at=self.now if was is None else None)

    @rule(which=st.sampled_from([*(("account", id_) for id_ in (1, 2, 3)), ("key", 1), ("key", 4)]))
    def suspend_or_resume(self, which: tuple[str, int]) -> None:
        """An operator suspends an account or a key, or resumes it."""
        of, id_ = which
        row = self.database.accounts[id_] if of == "account" else self.database.keys[id_]
        since = self.now if row.suspended_at is None else None
        self.database.change(which, suspended_at=since)
        self.specification.suspended ^= {which}

    @rule(key_id=st.sampled_from([1, 4]), grace=st.integers(0, 2 * LONGEST_LEASE))
    def rotate(self, key_id: int, grace: int) -> None:
        """An operator gives a key a new secret."""
        until = self.now + grace
        self.database.change(("key", key_id), rotated_at=self.now, former_until=until)
        self.specification.secrets[key_id] = (self.now, self.now + grace)

    def _expired(self) -> list[Operation]:
        """Return the result of the store's query for expired holds."""
        return [
            Expire(
                hold_id=hold.id,
                account_id=self.database.keys[hold.key_id].account_id,
                key_id=hold.key_id,
                parents=parents(self.database.keys[hold.key_id].account_id),
            )
            for hold in self.database.holds.values()
            if hold.state is HoldState.OPEN and hold.lease_until <= self.now
        ]

    def _apply(self, operations: Sequence[Operation]) -> None:
        self.is_sound = False  # until the specification agrees
        outcomes = self.database.apply(operations, self.now)
        check(len(outcomes) == len(operations), "an operation without an outcome")
        for operation, outcome in zip(operations, outcomes, strict=True):
            self.specification.follow(operation, outcome, self.now)
        self.is_sound = True
        self.drawing.sent += operations
        AccountsMachine.seen.update(map(_kind_of, outcomes))

    # ------------------------------------------------------------------------------ invariants

    @invariant()
    def money_is_conserved(self) -> None:
        """Each balance equals the sum of its ledger, and each held part that of the open holds."""
        database, specification = self.database, self.specification
        for account in database.accounts.values():
            ledger = sum(e.amount for e in database.ledger if e.account_id == account.id)
            held = sum(
                hold.amount
                for hold in database.holds.values()
                if hold.account_id == account.id and hold.state is HoldState.OPEN
            )
            check(account.balance == ledger, f"{account}, but a ledger of {ledger}")
            check(account.held == held, f"{account}, but open holds of {held}")
            check(account.balance == specification.balance(account.id), "another balance")
            check(0 <= account.held <= account.balance, f"{account} is in the red")

    @invariant()
    def budgets_are_counted(self) -> None:
        """Each budget has spent the entries, and holds the open holds, of its current window."""
        for (of, id_), books in self.specification.budgets.of.items():
            row = self.database.accounts[id_] if of == "account" else self.database.keys[id_]
            stored = {} if row.budgets is None else {b.window: b for b in row.budgets.of}
            check(stored.keys() == books.keys(), f"{row} has other budgets than {books}")
            for window, budget in stored.items():
                ids = [fact.place.hold_id for fact in books[window].facts]
                found = self.database.entry_of_hold
                ledger = -sum(found[hold_id].amount for hold_id in ids if hold_id in found)
                open_holds = sum(
                    self.database.holds[hold_id].amount
                    for hold_id in ids
                    if self.database.holds[hold_id].state is HoldState.OPEN
                )
                check(budget.spent == ledger, f"{budget}, but a ledger of {ledger}")
                check(budget.held == open_holds, f"{budget}, but open holds of {open_holds}")

    @invariant()
    def concurrency_is_kept(self) -> None:
        """Each key has as many running calls as open holds, and not more than its limit."""
        for key in self.database.keys.values():
            open_holds = sum(
                hold.key_id == key.id and hold.state is HoldState.OPEN
                for hold in self.database.holds.values()
            )
            check(key.running == open_holds, f"{key}, but {open_holds} open holds")
            check(key.concurrency is None or key.running <= key.concurrency, f"{key}: too many")

    @invariant()
    def holds_end_once(self) -> None:
        """Each hold has its final state, and one ledger entry with its charge."""
        facts, entries = self.specification.facts, self.database.entry_of_hold
        check(facts.keys() == self.database.holds.keys(), "other holds than were placed")
        for hold in self.database.holds.values():
            fact, entry = facts[hold.id], entries.get(hold.id)
            check((hold.state, hold.charged) == (fact.end, fact.charged), f"{hold}, not {fact}")
            check((hold.ended_at is None) == (hold.state is HoldState.OPEN), f"{hold} ended?")
            check((entry is not None) == fact.settled, f"{hold} with {entry}")
            if entry is not None:
                check(-entry.amount == hold.charged, f"{hold} with {entry}")
                check(entry.prices_from == fact.prices_from, f"{hold} with {entry}")
                check(entry.kind in (EntryKind.SETTLE, EntryKind.ADJUST), f"{entry}")
            check(0 <= hold.charged <= hold.amount, f"{hold} costs more than was held")

    def teardown(self) -> None:
        """After all leases, nothing is held, and repeated operations change nothing."""
        try:
            if self.is_sound:  # otherwise, report only the first failure
                self._end()
        finally:
            self.database.close()

    def _end(self) -> None:
        self.now = max([hold.lease_until for hold in self.database.holds.values()] + [self.now])
        self._apply(self._expired())
        for account in self.database.accounts.values():
            check(account.held == 0, f"{account} still holds")
        for key in self.database.keys.values():
            check(key.running == 0, f"{key} still runs")
        before = _money(self.database)
        self._apply([o for o in self.drawing.sent if self._had_its_effect(o)])
        check(_money(self.database) == before, "sent again, something changed")
        self.money_is_conserved()
        self.budgets_are_counted()
        self.concurrency_is_kept()
        self.holds_end_once()

    def _had_its_effect(self, operation: Operation) -> bool:
        match operation:
            case Place():
                return operation.hold_id in self.specification.facts
            case Grant():
                return (operation.account_id, operation.idempotency_id) in self.database.grants
            case Settle():
                fact = self.specification.facts.get(operation.hold_id)
                return fact is None or fact.end is not HoldState.EXPIRED
            case _:
                return True


def _kind_of(outcome: Outcome) -> str:
    match outcome:
        case Placed():
            return "placed"
        case Refused():
            return outcome.refusal.name
        case Ended():
            lost = " with a loss" if outcome.lost else ""
            return f"{outcome.state.name if outcome.state is not None else 'nothing'} ended{lost}"
        case Granted():
            return "not granted" if outcome.balance is None else "granted"
        case _:
            raise TypeError("an outcome of claims")


EVERYTHING: Final = {
    "placed",
    *Refusal.__members__,
    "nothing ended",
    "SETTLED ended",
    "SETTLED ended with a loss",
    "RELEASED ended",
    "RELEASED ended with a loss",
    "EXPIRED ended",
    "granted",
    "not granted",
}
RARELY: Final = 100


def _money(database: Tables) -> Any:
    """Return all rows, as values."""
    return deepcopy((database.accounts, database.keys, database.holds, database.ledger))


def run(steps: int) -> None:
    """Run machines until they have applied at least some number of operations.

    Raises:
        AssertionError: Something does not hold, or some outcome is missing or rare.
    """
    AccountsMachine.seen.clear()
    run_state_machine_as_test(
        AccountsMachine,
        settings=settings(
            max_examples=-(-steps // STEPS_OF_A_MACHINE),
            stateful_step_count=ROUNDS,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    check(AccountsMachine.seen.total() >= steps, f"only {AccountsMachine.seen.total()} steps")
    check(AccountsMachine.seen.keys() == EVERYTHING, f"{AccountsMachine.seen} lacks an outcome")
    rarest = min(AccountsMachine.seen.values())
    check(rarest * 200_000 >= RARELY * steps, f"{AccountsMachine.seen} has a rare outcome")

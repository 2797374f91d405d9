"""A state machine of accounts: random operations, one after the other.

    hypothesis -> operations -> Database.apply -> decide            under test
                        └───────► Specification.expect ──► outcome     what it should have said

The database is the store's way with `decide`, without SQL: only the rows that the operations name
are read, and only what `Changes` names is written. The specification keeps no totals: what is held,
what runs and what is left are counted anew from all holds and entries there ever were.
"""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from service.ledger.decisions import CONCURRENCY_WAIT, LARGEST_BALANCE, decide
from service.ledger.rate_limits import MINUTE
from service.ledger.rows import (
    Account,
    Changes,
    Ended,
    Entry,
    EntryKind,
    Expire,
    Grant,
    Granted,
    Hold,
    HoldState,
    Key,
    Operation,
    Outcome,
    Place,
    Placed,
    Refusal,
    Refused,
    Release,
    Rows,
    Settle,
)

STEPS: Final = 200_000
EXAMPLES: Final = 320
ROUNDS: Final = 60
LARGEST_BATCH: Final = 48

SECOND: Final = 10**9
HOUR: Final = 3600 * SECOND
BEGINNING: Final = 1_800_000_000 * SECOND
LONGEST_LEASE: Final = 120 * SECOND

ACCOUNTS: Final = (1, 2)
KEYS: Final = (
    Key(id=1, account_id=1),
    Key(id=2, account_id=1, requests_per_minute=7, concurrency=2),
    Key(id=3, account_id=1, tokens_per_minute=997, models=frozenset({"small"})),
    Key(id=4, account_id=2, requests_per_minute=61, tokens_per_minute=7_000_000, concurrency=5),
    Key(id=5, account_id=2, expires_at=BEGINNING + 10 * 60 * SECOND, concurrency=1),
    Key(id=6, account_id=2, requests_per_minute=1, tokens_per_minute=1),
)
MODELS: Final = ("small", "large")
PROCESSES: Final = 3


# ------------------------------------------------------------------------------------ database


class BrokenError(AssertionError):
    """A constraint of the tables was violated."""


@dataclass(slots=True)
class Database:
    """The tables, with a separate copy of each row."""

    accounts: dict[int, Account]
    keys: dict[int, Key]
    holds: dict[str, Hold] = field(default_factory=dict)
    ledger: list[Entry] = field(default_factory=list)
    entry_of_hold: dict[str, Entry] = field(default_factory=dict)
    grants: set[tuple[int, str]] = field(default_factory=set)

    def apply(self, operations: Sequence[Operation], now: int) -> list[Outcome]:
        """One transaction."""
        rows = Rows()
        for operation in operations:
            account = self.accounts.get(operation.account_id)
            if account is not None and account.id not in rows.accounts:
                rows.accounts[account.id] = replace(account)
            if isinstance(operation, Grant):
                named = (operation.account_id, operation.idempotency_id)
                if named in self.grants:
                    rows.grants.add(named)
                continue
            key = self.keys.get(operation.key_id)
            if key is not None and key.id not in rows.keys:
                rows.keys[key.id] = replace(key)
            hold = self.holds.get(operation.hold_id)
            if hold is not None and hold.id not in rows.holds:
                rows.holds[hold.id] = replace(hold)
        outcomes, changes = decide(rows, operations, now)
        self._write(rows, changes)
        return outcomes

    def _write(self, rows: Rows, changes: Changes) -> None:
        for account_id in changes.accounts:
            changed, account = rows.accounts[account_id], self.accounts[account_id]
            account.balance, account.held = changed.balance, changed.held
            _check(0 <= account.held <= account.balance, f"{account} is in the red")
            _check(account.balance <= LARGEST_BALANCE, f"{account} is too rich")
        for key_id in changes.keys:
            taken, key = rows.keys[key_id], self.keys[key_id]
            key.requests_tat, key.tokens_tat = taken.requests_tat, taken.tokens_tat
            key.running = taken.running
            _check(key.running >= 0, f"{key} runs a negative number")
        for hold_id in changes.placed:
            _check(hold_id not in self.holds, f"{hold_id} is placed twice")
            self.holds[hold_id] = replace(rows.holds[hold_id])
        for hold_id in changes.ended:
            ended, hold = rows.holds[hold_id], self.holds[hold_id]
            hold.state, hold.ended_at, hold.charged = ended.state, ended.ended_at, ended.charged
        for entry in changes.entries:
            if entry.hold_id is not None:
                _check(entry.hold_id not in self.entry_of_hold, f"{entry.hold_id} has two entries")
                self.entry_of_hold[entry.hold_id] = entry
            if entry.idempotency_id is not None:
                named = (entry.account_id, entry.idempotency_id)
                _check(named not in self.grants, f"{named} is granted twice")
                self.grants.add(named)
            self.ledger.append(entry)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenError(otherwise)


# ------------------------------------------------------------------------------- specification


@dataclass(slots=True)
class Taking:
    """The amount that a hold took from a limit, minus the returned part, and the time."""

    at: int
    count: int
    is_final: bool = False


@dataclass(slots=True)
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


@dataclass(slots=True)
class Window:
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
        _check(worst <= self.limit * MINUTE, f"above {self.limit} per minute at {now}")
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


class Specification:
    """The expected outcome of each operation."""

    def __init__(self, database: Database) -> None:
        self._keys = database.keys
        self.facts: dict[str, Fact] = {}
        self.entries: list[tuple[int, int]] = []
        """Accounts and amounts."""
        self.suspended: set[tuple[str, int]] = set()
        """Accounts and keys, as ("account" or "key", id)."""
        self.secrets: dict[int, tuple[int, int]] = {}
        """For each rotated key, the time of its secret, and the end of the grace of the former."""
        self._granted: set[tuple[int, str]] = set()
        self._windows: dict[tuple[int, str], Window] = {}
        self._buckets: dict[tuple[int, str], Bucket] = {}
        for key in database.keys.values():
            for kind, limit in _limits(key):
                self._windows[key.id, kind] = Window(limit)
                self._buckets[key.id, kind] = Bucket(limit)

    def balance(self, account_id: int) -> int:
        return sum(amount for owner, amount in self.entries if owner == account_id)

    def open(self) -> list[Fact]:
        return [fact for fact in self.facts.values() if fact.end is HoldState.OPEN]

    def held(self, account_id: int) -> int:
        return sum(f.place.amount for f in self.open() if f.place.account_id == account_id)

    def running(self, key_id: int) -> int:
        return sum(fact.place.key_id == key_id for fact in self.open())

    def note_clock_set_back(self) -> None:
        for window in self._windows.values():
            window.begin_anew()

    def follow(self, operation: Operation, outcome: Outcome, now: int) -> None:
        """Compare an outcome with the expected one, and apply its effect."""
        match operation:
            case Place():
                self._place(operation, outcome, now)
            case Settle():
                _same(outcome, self._settle(operation, now))
            case Release():
                _same(outcome, self._release(operation, now))
            case Expire():
                _same(outcome, self._expire(operation, now))
            case Grant():
                _same(outcome, self._grant(operation))

    def _place(self, place: Place, outcome: Outcome, now: int) -> None:
        key = self._keys.get(place.key_id)
        if key is None or key.account_id != place.account_id:
            _same(outcome, Refused(refusal=Refusal.KEY))
            return
        if place.hold_id in self.facts:
            _check(isinstance(outcome, Placed), f"{outcome} for a hold that was placed")
            return
        refused = self._refused(place, key, now)
        if refused is not None:
            _same(_without_levels(outcome), refused)
            return
        wanted = {"requests": 1, "tokens": place.tokens}
        for kind, _ in _limits(key):
            self._buckets[key.id, kind].refill(now)
        is_busy = key.concurrency is not None and self.running(key.id) >= key.concurrency
        if isinstance(outcome, Refused) and outcome.refusal is Refusal.CONCURRENCY:
            _check(is_busy and outcome.wait == CONCURRENCY_WAIT, f"{outcome} without a reason")
            return
        if isinstance(outcome, Refused):
            kind = {Refusal.REQUESTS: "requests", Refusal.TOKENS: "tokens"}.get(outcome.refusal, "")
            bucket = self._buckets.get((key.id, kind))
            if bucket is None:
                raise BrokenError(f"{outcome} without a reason")
            fits = wanted[kind] <= bucket.limit
            _check((outcome.wait > 0) == fits, f"{outcome}: a wait that does not help")
            _check(not bucket.has(wanted[kind]), f"{outcome} with a full bucket")
            longest = outcome.wait > CONCURRENCY_WAIT or not fits
            _check(longest or not is_busy, f"{outcome}: the shorter of two waits")
            return
        _check(isinstance(outcome, Placed) and not is_busy, f"{outcome} for a place")
        fact = self.facts[place.hold_id] = Fact(place, now + place.lease)
        for kind, _ in _limits(key):
            window = self._windows[key.id, kind]
            taking = window.take(wanted[kind], now)
            self._buckets[key.id, kind].take(wanted[kind])
            if kind == "tokens":
                fact.tokens = taking
            else:
                window.end(taking, 0)

    def _refused(self, place: Place, key: Key, now: int) -> Refused | None:
        """Return the rejection of a hold, without regard to the limits of its key."""
        balance, held = self.balance(place.account_id), self.held(place.account_id)
        current, former_until = self.secrets.get(key.id, (None, 0))
        has_ended = key.expires_at is not None and key.expires_at <= now
        is_stale = place.key_rotated_at != current and now >= former_until
        if key.revoked_at is not None or has_ended or is_stale:
            return Refused(refusal=Refusal.KEY)
        if {("account", place.account_id), ("key", key.id)} & self.suspended:
            return Refused(refusal=Refusal.SUSPENDED)
        if key.models is not None and place.model not in key.models:
            return Refused(refusal=Refusal.MODEL)
        if place.amount > balance:
            return Refused(refusal=Refusal.CREDIT, available=balance)
        if place.amount > balance - held:
            return Refused(refusal=Refusal.HELD, available=balance - held)
        return None

    def _settle(self, settle: Settle, now: int) -> Ended:
        fact = self.facts.get(settle.hold_id)
        key = self._keys.get(settle.key_id)
        is_ours = key is not None and key.account_id == settle.account_id
        if fact is None and settle.place is not None and is_ours:
            # The store lost the hold.
            fact = Fact(settle.place, now, end=HoldState.EXPIRED)
            self.facts[settle.hold_id] = fact
        if fact is None:
            return Ended(state=None)
        if not fact.settled and fact.end is not HoldState.RELEASED:
            fact.charged = min(settle.charge, fact.place.amount)
            if fact.end is HoldState.EXPIRED:
                owner = fact.place.account_id
                fact.charged = min(fact.charged, self.balance(owner) - self.held(owner))
            else:
                used = settle.prompt_tokens + settle.completion_tokens
                self._give_back(fact, max(fact.place.tokens - used, 0), now)
            fact.end, fact.settled = HoldState.SETTLED, True
            fact.prices_from = settle.prices_from
            self.entries.append((fact.place.account_id, -fact.charged))
        lost = max(settle.charge - fact.charged, 0)
        return Ended(state=fact.end, charged=fact.charged, lost=lost)

    def _release(self, release: Release, now: int) -> Ended:
        fact = self.facts.get(release.hold_id)
        if fact is None:
            return Ended(state=None)
        if fact.end is HoldState.OPEN:
            fact.end = HoldState.RELEASED
            self._give_back(fact, fact.place.tokens, now)
        return Ended(state=fact.end, charged=fact.charged)

    def _expire(self, expire: Expire, now: int) -> Ended:
        fact = self.facts.get(expire.hold_id)
        if fact is None or (fact.end is HoldState.OPEN and now < fact.lease_until):
            return Ended(state=None)
        if fact.end is HoldState.OPEN:
            fact.end = HoldState.EXPIRED
            self._give_back(fact, 0, now)
        return Ended(state=fact.end, charged=fact.charged)

    def _give_back(self, fact: Fact, unused: int, now: int) -> None:
        if fact.tokens is None:
            return
        of = fact.place.key_id, "tokens"
        self._windows[of].end(fact.tokens, unused)
        if unused:
            # Otherwise, the bucket was not read, and a clock that was set back not detected.
            self._buckets[of].refill(now)
            self._buckets[of].give_back(unused, now - fact.tokens.at)

    def _grant(self, grant: Grant) -> Granted:
        account_id = grant.account_id
        if account_id not in ACCOUNTS:
            return Granted(balance=None)
        if (account_id, grant.idempotency_id) in self._granted:
            return Granted(balance=self.balance(account_id))
        after = self.balance(account_id) + grant.amount
        if after > LARGEST_BALANCE or after < self.held(account_id):
            return Granted(balance=None)
        self._granted.add((account_id, grant.idempotency_id))
        self.entries.append((account_id, grant.amount))
        return Granted(balance=after)


def _limits(key: Key) -> list[tuple[str, int]]:
    limits = (("requests", key.requests_per_minute), ("tokens", key.tokens_per_minute))
    return [(kind, limit) for kind, limit in limits if limit is not None]


def _without_levels(outcome: Outcome) -> Outcome:
    return replace(outcome, requests=None, tokens=None) if isinstance(outcome, Refused) else outcome


def _same(outcome: Outcome, expected: Outcome) -> None:
    _check(outcome == expected, f"{outcome} is not {expected}")


# ------------------------------------------------------------------------------------- machine


@dataclass(slots=True)
class Process:
    """The memory of a process: its open holds."""

    name: str
    holds: list[Place] = field(default_factory=list)


_OPERATION_BYTES: Final = 4


def _batches() -> st.SearchStrategy[bytes]:
    """Batches, with four bytes per operation: the kind, the object, the amount, and an extra."""
    return st.integers(1, LARGEST_BATCH).flatmap(
        lambda size: st.binary(min_size=size * _OPERATION_BYTES, max_size=size * _OPERATION_BYTES)
    )


class AccountsMachine(RuleBasedStateMachine):
    """Processes that place and end holds, an operator, a reaper, and failures."""

    seen: ClassVar[Counter[str]] = Counter()
    """The outcomes of the operations of all machines."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGINNING
        self.database = Database(
            accounts={id_: Account(id=id_, balance=0, held=0) for id_ in ACCOUNTS},
            keys={key.id: replace(key) for key in KEYS},
        )
        self.specification = Specification(self.database)
        self.processes = [Process(f"process {number}") for number in range(PROCESSES)]
        self.sent: list[Operation] = []
        self.placed = 0
        self.is_sound = True

    @initialize(amount=st.integers(0, 5_000))
    def begin(self, amount: int) -> None:
        """Each account has some credit."""
        self._apply([Grant(account_id=id_, amount=amount, idempotency_id="0") for id_ in ACCOUNTS])

    @rule(batch=_batches())
    def work(self, batch: bytes) -> None:
        """Operations arrive together."""
        self._apply(
            [
                self._operation(*batch[start : start + _OPERATION_BYTES])
                for start in range(0, len(batch), _OPERATION_BYTES)
            ]
        )

    @rule(batch=_batches(), seconds=st.integers(0, 70))
    def work_later(self, batch: bytes, seconds: int) -> None:
        """The same after a while."""
        self.now += seconds * SECOND + batch[0]
        self.work(batch)

    @rule(nanoseconds=st.integers(0, 2 * LONGEST_LEASE))
    def wait(self, nanoseconds: int) -> None:
        """Time passes."""
        self.now += nanoseconds

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
        self.processes[number].holds.clear()

    @rule(key_id=st.sampled_from([key.id for key in KEYS]))
    def revoke(self, key_id: int) -> None:
        """An operator revokes a key, or makes a revoked key valid again."""
        key = self.database.keys[key_id]
        key.revoked_at = self.now if key.revoked_at is None else None

    @rule(which=st.sampled_from([*(("account", id_) for id_ in ACCOUNTS), ("key", 1), ("key", 4)]))
    def suspend_or_resume(self, which: tuple[str, int]) -> None:
        """An operator suspends an account or a key, or resumes it."""
        of, id_ = which
        row = self.database.accounts[id_] if of == "account" else self.database.keys[id_]
        row.suspended_at = self.now if row.suspended_at is None else None
        self.specification.suspended ^= {which}

    @rule(key_id=st.sampled_from([1, 4]), grace=st.integers(0, 2 * LONGEST_LEASE))
    def rotate(self, key_id: int, grace: int) -> None:
        """An operator gives a key a new secret."""
        key = self.database.keys[key_id]
        key.rotated_at, key.former_until = self.now, self.now + grace
        self.specification.secrets[key_id] = (self.now, self.now + grace)

    def _operation(self, what: int, which: int, much: int, more: int) -> Operation:
        """Read an operation from four bytes."""
        process = self.processes[which % PROCESSES]
        facts = list(self.specification.facts.values())
        any_number = much << 8 | more
        operation: Operation
        match what % 16:
            case 0 | 1 | 2 | 3 | 4 | 5:
                operation = self._a_place(process, which, much, more)
                process.holds.append(operation)
            case 6 | 7 | 8 if process.holds:
                place = process.holds.pop(which % len(process.holds))
                operation = _settlement(place, much, more)
            case 9 | 10 if process.holds:
                operation = _release(process.holds.pop(which % len(process.holds)))
            case 11 if facts:
                # The reaper expires a hold whose lease has possibly not ended.
                operation = _expire(facts[any_number % len(facts)].place)
            case 12 if more % 4 == 0:
                place = self._a_place(process, which, much, more)
                operation = _settlement(place, much, which)
            case 12 if facts:
                # A settlement from a journal, of any hold in any state.
                operation = _settlement(facts[any_number % len(facts)].place, which, more)
            case 13 | 14 if self.sent:
                operation = self.sent[any_number % len(self.sent)]
            case _:
                operation = _a_grant(which, much, more)
        return operation

    def _a_place(self, process: Process, which: int, much: int, more: int) -> Place:
        self.placed += 1
        # Sometimes a key that does not exist, or a key of another account.
        key_id = 1 + (which >> 2) % (len(KEYS) + (more % 8 == 0))
        key = self.database.keys.get(key_id)
        account_id = 1 + more % 2 if key is None or more % 16 == 1 else key.account_id
        limit = (key.tokens_per_minute if key else None) or 1_000
        return Place(
            hold_id=f"hold {self.placed}",
            account_id=account_id,
            key_id=key_id,
            amount=(0, much, much * 4, much * 16)[more >> 6],
            tokens=(much % 4, limit * (much % 8) // 8, limit, limit + 1)[(more >> 4) % 4],
            model=MODELS[which % 2],
            owner=process.name,
            lease=LONGEST_LEASE * (1 + much % 8) // 8,
            # Sometimes the caller sent a secret from before the last rotation.
            key_rotated_at=None if key is None or more % 4 == 3 else key.rotated_at,
        )

    def _expired(self) -> list[Operation]:
        """Return the result of the store's query for expired holds."""
        return [
            Expire(hold_id=hold.id, account_id=hold.account_id, key_id=hold.key_id)
            for hold in self.database.holds.values()
            if hold.state is HoldState.OPEN and hold.lease_until <= self.now
        ]

    def _apply(self, operations: Sequence[Operation]) -> None:
        self.is_sound = False  # until the specification agrees
        outcomes = self.database.apply(operations, self.now)
        _check(len(outcomes) == len(operations), "an operation without an outcome")
        for operation, outcome in zip(operations, outcomes, strict=True):
            self.specification.follow(operation, outcome, self.now)
        self.is_sound = True
        self.sent += operations
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
            _check(account.balance == ledger, f"{account}, but a ledger of {ledger}")
            _check(account.held == held, f"{account}, but open holds of {held}")
            _check(account.balance == specification.balance(account.id), "another balance")
            _check(0 <= account.held <= account.balance, f"{account} is in the red")

    @invariant()
    def concurrency_is_kept(self) -> None:
        """Each key has as many running calls as open holds, and not more than its limit."""
        for key in self.database.keys.values():
            open_holds = sum(
                hold.key_id == key.id and hold.state is HoldState.OPEN
                for hold in self.database.holds.values()
            )
            _check(key.running == open_holds, f"{key}, but {open_holds} open holds")
            _check(key.concurrency is None or key.running <= key.concurrency, f"{key}: too many")

    @invariant()
    def holds_end_once(self) -> None:
        """Each hold has its final state, and one ledger entry with its charge."""
        facts, entries = self.specification.facts, self.database.entry_of_hold
        _check(facts.keys() == self.database.holds.keys(), "other holds than were placed")
        for hold in self.database.holds.values():
            fact, entry = facts[hold.id], entries.get(hold.id)
            _check((hold.state, hold.charged) == (fact.end, fact.charged), f"{hold}, not {fact}")
            _check((hold.ended_at is None) == (hold.state is HoldState.OPEN), f"{hold} ended?")
            _check((entry is not None) == fact.settled, f"{hold} with {entry}")
            if entry is not None:
                _check(-entry.amount == hold.charged, f"{hold} with {entry}")
                _check(entry.prices_from == fact.prices_from, f"{hold} with {entry}")
                _check(entry.kind in (EntryKind.SETTLE, EntryKind.ADJUST), f"{entry}")
            _check(0 <= hold.charged <= hold.amount, f"{hold} costs more than was held")

    def teardown(self) -> None:
        """After all leases, nothing is held, and repeated operations change nothing."""
        if not self.is_sound:
            return  # report only the first failure
        self.now = max([hold.lease_until for hold in self.database.holds.values()] + [self.now])
        self._apply(self._expired())
        for account in self.database.accounts.values():
            _check(account.held == 0, f"{account} still holds")
        for key in self.database.keys.values():
            _check(key.running == 0, f"{key} still runs")
        before = _money(self.database)
        self._apply([o for o in self.sent if self._had_its_effect(o)])
        _check(_money(self.database) == before, "sent again, something changed")
        self.money_is_conserved()
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


def _settlement(place: Place, much: int, more: int) -> Settle:
    """Draw a charge from 0 to twice the hold."""
    return Settle(
        hold_id=place.hold_id,
        account_id=place.account_id,
        key_id=place.key_id,
        charge=place.amount * much // 128,
        prompt_tokens=place.tokens * more // 256,
        completion_tokens=much % 4,
        partial=much % 2 == 1,
        estimated=more % 2 == 1,
        prices_from=None if much % 3 == 0 else more,
        place=place,
    )


def _release(place: Place) -> Release:
    return Release(hold_id=place.hold_id, account_id=place.account_id, key_id=place.key_id)


def _expire(place: Place) -> Expire:
    return Expire(hold_id=place.hold_id, account_id=place.account_id, key_id=place.key_id)


def _a_grant(which: int, much: int, more: int) -> Grant:
    """Draw a grant, possibly negative, mostly to an existing account, often with a used id."""
    amount = LARGEST_BALANCE if much == 255 else (much - 64) * 8
    return Grant(account_id=1 + which % 3, amount=amount, idempotency_id=f"{more % 64}")


def _money(database: Database) -> Any:
    """Return all rows, as values."""
    return deepcopy((database.accounts, database.keys, database.holds, database.ledger))


@pytest.mark.time_limit(300)
def test_no_sequence_of_operations_breaks_an_account() -> None:
    AccountsMachine.seen.clear()
    run_state_machine_as_test(
        AccountsMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=ROUNDS,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert AccountsMachine.seen.total() >= STEPS
    assert AccountsMachine.seen.keys() == EVERYTHING
    assert min(AccountsMachine.seen.values()) >= RARELY

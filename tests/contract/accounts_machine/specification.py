"""The expected outcome of each operation."""

from msgspec.structs import replace

from service.ledger.decisions import CONCURRENCY_WAIT, LARGEST_BALANCE
from service.ledger.rows import (
    Ended,
    Expire,
    Grant,
    Granted,
    HoldState,
    Key,
    Operation,
    Outcome,
    Place,
    Placed,
    Refusal,
    Refused,
    Release,
    Settle,
)
from tests.contract.accounts_machine.budget_books import (
    BY_BUDGETS,
    BudgetBooks,
    Fact,
    follow,
    refused,
)
from tests.contract.accounts_machine.cast import PAYERS, Scope, parents, payer
from tests.contract.accounts_machine.checks import BrokenError, check
from tests.contract.accounts_machine.rates import Bucket, Passage
from tests.contract.accounts_machine.tables import Tables


class Specification:
    """The expected outcome of each operation."""

    def __init__(self, tables: Tables) -> None:
        self._keys = tables.keys
        self.facts: dict[str, Fact] = {}
        self.entries: list[tuple[int, int]] = []
        """Accounts and amounts."""
        self.suspended: set[tuple[str, int]] = set()
        """Accounts and keys, as ("account" or "key", id)."""
        self.secrets: dict[int, tuple[int, int]] = {}
        """For each rotated key, the time of its secret, and the end of the grace of the former."""
        self.budgets = BudgetBooks()
        self._granted: set[tuple[int, str]] = set()
        self._windows: dict[tuple[int, str], Passage] = {}
        self._buckets: dict[tuple[int, str], Bucket] = {}
        for key in tables.keys.values():
            for kind, limit in _limits(key):
                self._windows[key.id, kind] = Passage(limit)
                self._buckets[key.id, kind] = Bucket(limit)

    def balance(self, account_id: int) -> int:
        return sum(amount for owner, amount in self.entries if owner == account_id)

    def open(self) -> list[Fact]:
        return [fact for fact in self.facts.values() if fact.end is HoldState.OPEN]

    def held(self, account_id: int) -> int:
        return sum(f.place.amount for f in self.open() if payer(f.place.account_id) == account_id)

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
            check(isinstance(outcome, Placed), f"{outcome} for a hold that was placed")
            return
        refused = self._refused(place, key, now)
        if refused is not None:
            told = _without_levels(outcome)
            if isinstance(told, Refused) and told.refusal in BY_BUDGETS:
                told = follow(told, self.budgets.binding(_scopes(key), now), place.amount)
            _same(told, refused)
            return
        wanted = {"requests": 1, "tokens": place.tokens}
        for kind, _ in _limits(key):
            self._buckets[key.id, kind].refill(now)
        is_busy = key.concurrency is not None and self.running(key.id) >= key.concurrency
        if isinstance(outcome, Refused) and outcome.refusal is Refusal.CONCURRENCY:
            check(is_busy and outcome.wait == CONCURRENCY_WAIT, f"{outcome} without a reason")
            return
        if isinstance(outcome, Refused):
            kind = {Refusal.REQUESTS: "requests", Refusal.TOKENS: "tokens"}.get(outcome.refusal, "")
            bucket = self._buckets.get((key.id, kind))
            if bucket is None:
                raise BrokenError(f"{outcome} without a reason")
            fits = wanted[kind] <= bucket.limit
            check((outcome.wait > 0) == fits, f"{outcome}: a wait that does not help")
            check(not bucket.has(wanted[kind]), f"{outcome} with a full bucket")
            longest = outcome.wait > CONCURRENCY_WAIT or not fits
            check(longest or not is_busy, f"{outcome}: the shorter of two waits")
            return
        check(isinstance(outcome, Placed) and not is_busy, f"{outcome} for a place")
        fact = self.facts[place.hold_id] = Fact(place, now + place.lease)
        for _, book in self.budgets.binding(_scopes(key), now):
            book.facts.append(fact)
            is_within = place.amount == 0 or book.spent + book.held <= book.limit
            check(is_within, f"{place} exceeds {book}")
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
        pays = payer(place.account_id)
        current, former_until = self.secrets.get(key.id, (None, 0))
        has_ended = key.expires_at is not None and key.expires_at <= now
        is_stale = place.key_rotated_at != current and now >= former_until
        if key.revoked_at is not None or has_ended or is_stale:
            return Refused(refusal=Refusal.KEY)
        if {*_scopes(key)} & self.suspended:
            return Refused(refusal=Refusal.SUSPENDED)
        binding = self.budgets.binding(_scopes(key), now)
        if key.models is not None and place.model not in key.models:
            return Refused(refusal=Refusal.MODEL)
        return refused(binding, place.amount, self.balance(pays), self.held(pays))

    def _settle(self, settle: Settle, now: int) -> Ended:
        fact = self.facts.get(settle.hold_id)
        key = self._keys.get(settle.key_id)
        is_ours = key is not None and key.account_id == settle.account_id
        if fact is None and settle.place is not None and key is not None and is_ours:
            # The store lost the hold.
            fact = Fact(settle.place, now, end=HoldState.EXPIRED)
            self.facts[settle.hold_id] = fact
            for _, book in self.budgets.binding(_scopes(key), now):
                book.facts.append(fact)
        if fact is None:
            return Ended(state=None)
        if not fact.settled and fact.end is not HoldState.RELEASED:
            fact.charged = min(settle.charge, fact.place.amount)
            if fact.end is HoldState.EXPIRED:
                owner = payer(fact.place.account_id)
                fact.charged = min(fact.charged, self.balance(owner) - self.held(owner))
            else:
                used = settle.prompt_tokens + settle.completion_tokens
                self._give_back(fact, max(fact.place.tokens - used, 0), now)
            fact.end, fact.settled = HoldState.SETTLED, True
            fact.prices_from = settle.prices_from
            self.entries.append((payer(fact.place.account_id), -fact.charged))
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
        if account_id not in PAYERS:
            return Granted(balance=None)
        if (account_id, grant.idempotency_id) in self._granted:
            return Granted(balance=self.balance(account_id))
        after = self.balance(account_id) + grant.amount
        if after > LARGEST_BALANCE or after < self.held(account_id):
            return Granted(balance=None)
        self._granted.add((account_id, grant.idempotency_id))
        self.entries.append((account_id, grant.amount))
        return Granted(balance=after)


def _scopes(key: Key) -> list[Scope]:
    accounts = (key.account_id, *parents(key.account_id))
    return [("key", key.id), *(("account", id_) for id_ in accounts)]


def _limits(key: Key) -> list[tuple[str, int]]:
    limits = (("requests", key.requests_per_minute), ("tokens", key.tokens_per_minute))
    return [(kind, limit) for kind, limit in limits if limit is not None]


def _without_levels(outcome: Outcome) -> Outcome:
    return replace(outcome, requests=None, tokens=None) if isinstance(outcome, Refused) else outcome


def _same(outcome: Outcome, expected: Outcome) -> None:
    check(outcome == expected, f"{outcome} is not {expected}")

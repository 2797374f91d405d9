"""The operations on accounts: a pure function from rows and operations to rows and outcomes.

    decide(rows, [operation, …], now) -> [outcome, …], changes      rows are changed in place

It reads no clock and no store. Operations are applied in the order of their arrival, each to the
result of the preceding ones. A rejected operation changes nothing.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import structs

from service.ledger import budgets, claims, entry_events, rate_limits
from service.ledger.budgets import Budgets
from service.ledger.ids import first_at
from service.ledger.rows import (
    Account,
    Changes,
    Claimed,
    Ended,
    Entry,
    EntryKind,
    Exceeded,
    Expire,
    Forget,
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
from service.model_names import allows

LARGEST_BALANCE: Final = 2**62
"""Maximum balance in nano-credits: some four billion credits, half of the store's integer range."""

KEPT: Final = 30 * 24 * 3600 * 10**9
"""Nanoseconds for which a hold is kept after its end. A settlement can wait that long in a
journal."""

CONCURRENCY_WAIT: Final = 10**9
"""The wait in nanoseconds that is reported at the limit of concurrent calls."""


def decide(
    rows: Rows,
    operations: Sequence[Operation],
    now: int,
    thresholds: tuple[int, ...] | None = None,
) -> tuple[list[Outcome], Changes]:
    """Apply operations to rows.

    Args:
        rows: Every existing row that an operation names.
        operations: The operations in the order of their arrival.
        now: The store's clock.
        thresholds: The percentages of credit that are reported as events; None for no events.
    """
    changes = Changes(thresholds=thresholds)
    outcomes: list[Outcome] = []
    for operation in operations:
        match operation:
            case Place():
                outcome: Outcome = _place(rows, operation, now, changes)
            case Settle():
                outcome = _settle(rows, operation, now, changes)
            case Release():
                outcome = _release(rows, operation, now, changes)
            case Expire():
                outcome = _expire(rows, operation, now, changes)
            case Grant():
                outcome = _grant(rows, operation, now, changes)
            case Forget():
                outcome = claims.forget(rows, operation, now, changes)
        outcomes.append(outcome)
    return outcomes, changes


def _place(rows: Rows, place: Place, now: int, changes: Changes) -> Placed | Refused | Claimed:
    key = rows.keys.get(place.key_id)
    chain = _chain(rows, place.account_id)
    if key is None or not chain or key.account_id != place.account_id:
        return Refused(refusal=Refusal.KEY)
    placed = rows.holds.get(place.hold_id)
    if placed is not None:
        if not _is_same(placed, place):
            raise ValueError("the id is that of another hold")
        # Sent again, because the response was lost. A revocation in the meantime changes nothing.
        return Placed(requests=_requests(key, now), tokens=_tokens(key, now))
    barred = _barred(key, chain, place, now)
    if barred is not None:
        return Refused(refusal=barred)
    claimed = None if place.claim is None else claims.taken(rows, place.claim, now)
    if claimed is not None:
        return structs.replace(claimed, requests=_requests(key, now), tokens=_tokens(key, now))
    payer = chain[-1]
    scopes = _scopes(key, chain, now, changes)
    refused = _beyond_credit(payer, key, scopes, place) or _take(key, place, now, changes)
    if refused is not None:
        return structs.replace(refused, requests=_requests(key, now), tokens=_tokens(key, now))
    key.running += 1
    key.used_at = now
    payer.held += place.amount
    rows.holds[place.hold_id] = Hold(
        id=place.hold_id,
        account_id=payer.id,
        key_id=key.id,
        amount=place.amount,
        tokens=place.tokens,
        model=place.model,
        owner=place.owner,
        created_at=now,
        lease_until=now + place.lease,
        windows=_held(scopes, place.amount) if scopes else None,
    )
    changes.accounts.add(payer.id)
    if scopes:
        changes.accounts.update(one.id for one in chain)
    changes.keys.add(key.id)
    changes.placed.append(place.hold_id)
    if place.claim is not None:
        claims.take(rows, place, place.claim, now, changes)
    return Placed(requests=_requests(key, now), tokens=_tokens(key, now))


def _barred(key: Key, chain: Sequence[Account], place: Place, now: int) -> Refusal | None:
    """Return the reason why a key can make no calls at all, or None if it can."""
    if not (is_valid(key, now) and _is_secret_valid(key, place, now)):
        return Refusal.KEY
    if key.suspended_at is not None or any(one.suspended_at is not None for one in chain):
        return Refusal.SUSPENDED
    return None


def _is_same(hold: Hold, place: Place) -> bool:
    return (hold.key_id, hold.amount, hold.tokens, hold.model, hold.owner) == (
        place.key_id,
        place.amount,
        place.tokens,
        place.model,
        place.owner,
    )


def _heed_clock(key: Key, now: int, changes: Changes) -> None:
    """If the clock was set back, make the key's buckets refill by the new clock."""
    before = key.requests_tat, key.tokens_tat
    if key.requests_per_minute is not None:
        key.requests_tat = rate_limits.within_reach(key.requests_per_minute, key.requests_tat, now)
    if key.tokens_per_minute is not None:
        key.tokens_tat = rate_limits.within_reach(key.tokens_per_minute, key.tokens_tat, now)
    if before != (key.requests_tat, key.tokens_tat):
        changes.keys.add(key.id)


def _chain(rows: Rows, account_id: int) -> list[Account]:
    """Return an account and those above it. The last one pays. Empty if one is missing."""
    chain: list[Account] = []
    wanted: int | None = account_id
    while wanted is not None:
        account = rows.accounts.get(wanted)
        if account is None:
            return []
        chain.append(account)
        wanted = account.parent_id
    return chain


_Scopes: TypeAlias = Sequence[tuple[int | None, Budgets | None]]
"""The budgets of a key (None), of its account, and of each account above it. Empty if there are
none."""


def _scopes(key: Key, chain: Sequence[Account], now: int, changes: Changes) -> _Scopes:
    """Return the budgets that bind a key at this time."""
    if key.budgets is None and all(account.budgets is None for account in chain):
        return ()
    if key.budgets is not None and budgets.heed_time(key.budgets, now):
        changes.keys.add(key.id)
    for account in chain:
        if account.budgets is not None and budgets.heed_time(account.budgets, now):
            changes.accounts.add(account.id)
    return [(None, key.budgets), *((account.id, account.budgets) for account in chain)]


def _held(scopes: _Scopes, amount: int) -> str:
    """Hold an amount in all budgets, and return the windows of the hold."""
    return ";".join([budgets.hold(scope, amount) for _, scope in scopes])


def _beyond_credit(payer: Account, key: Key, scopes: _Scopes, place: Place) -> Refused | None:
    """Return the rejection of a hold that the model, the balance or a budget does not allow.

    If several reject it, report first what no ending hold can change.
    """
    if not allows(key.models, place.model):
        return Refused(refusal=Refusal.MODEL)
    free = payer.balance - payer.held
    if not scopes and place.amount <= free:
        return None
    every = [budget for _, scope in scopes if scope is not None for budget in scope.of]
    refusing = budgets.refusing(every, place.amount)
    refusal, available = None, min([free, *map(budgets.available, every)])
    if place.amount > payer.balance:
        refusal = Refusal.CREDIT
    elif refusing is not None and place.amount > budgets.unspent(refusing):
        refusal = Refusal.BUDGET
    elif place.amount > free:
        refusal = Refusal.HELD
    elif refusing is not None:
        refusal = Refusal.BUDGET_HELD
    else:
        return None
    if refusal in (Refusal.CREDIT, Refusal.BUDGET):
        available = min([payer.balance, *map(budgets.unspent, every)])
    exceeded = None
    if refusing is not None and refusal in (Refusal.BUDGET, Refusal.BUDGET_HELD):
        exceeded = _exceeded(scopes, refusing)
    return Refused(refusal=refusal, available=available, budget=exceeded)


def _exceeded(scopes: _Scopes, budget: budgets.Budget) -> Exceeded:
    (of,) = (id_ for id_, scope in scopes if scope and any(budget is one for one in scope.of))
    return Exceeded(
        account_id=of,
        window=budget.window,
        time_zone=budget.time_zone,
        limit=budget.limit,
        spent=budget.spent,
        held=budget.held,
        end=budget.end,
    )


def _take(key: Key, place: Place, now: int, changes: Changes) -> Refused | None:
    """Take the needs of a request from all limits of its key, or from none.

    If several limits reject the request, report the one with the longest wait: after a shorter
    wait, the request would be rejected again.
    """
    requests_tat, tokens_tat = key.requests_tat, key.tokens_tat
    refusal, longest = None, 0
    if key.concurrency is not None and key.running >= key.concurrency:
        refusal, longest = Refusal.CONCURRENCY, CONCURRENCY_WAIT
    if key.requests_per_minute is not None:
        requests_tat, wait = rate_limits.take(key.requests_per_minute, requests_tat, now, 1)
        if wait > longest:
            refusal, longest = Refusal.REQUESTS, wait
    if key.tokens_per_minute is not None:
        if place.tokens > key.tokens_per_minute:
            refusal, longest = Refusal.TOKENS, 0  # it never fits
        else:
            tokens_tat, wait = rate_limits.take(
                key.tokens_per_minute, tokens_tat, now, place.tokens
            )
            if wait > longest:
                refusal, longest = Refusal.TOKENS, wait
    if refusal is not None:
        _heed_clock(key, now, changes)
        most = key.concurrency if refusal is Refusal.CONCURRENCY else None
        return Refused(refusal=refusal, wait=longest, concurrency=most or 0)
    key.requests_tat, key.tokens_tat = requests_tat, tokens_tat
    return None


def is_valid(key: Key, now: int) -> bool:
    """Whether a key is valid."""
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def _is_secret_valid(key: Key, place: Place, now: int) -> bool:
    """Whether the secret that the caller sent is the key's own, or the former one in its grace."""
    is_own = place.key_rotated_at == key.rotated_at
    return is_own or (key.former_until is not None and now < key.former_until)


def _requests(key: Key, now: int) -> rate_limits.Level | None:
    limit = key.requests_per_minute
    return None if limit is None else rate_limits.level(limit, key.requests_tat, now)


def _tokens(key: Key, now: int) -> rate_limits.Level | None:
    limit = key.tokens_per_minute
    return None if limit is None else rate_limits.level(limit, key.tokens_tat, now)


def _settle(rows: Rows, settle: Settle, now: int, changes: Changes) -> Ended:
    hold = rows.holds.get(settle.hold_id) or _lost_hold(rows, settle, now, changes)
    if hold is None:
        return Ended(state=None)
    charge = max(settle.charge, 0)
    if hold.state not in (HoldState.OPEN, HoldState.EXPIRED):
        lost = max(charge - hold.charged, 0)
        return Ended(state=hold.state, charged=hold.charged, lost=lost)
    place = settle.place
    claim = None if place is None else place.claim
    if claim is not None and claims.is_lost(rows, claim, settle.hold_id):
        return _give_up(rows, hold, now, changes)
    account = rows.accounts[hold.account_id]
    hold.charged = min(charge, hold.amount)
    if hold.state is HoldState.OPEN:
        kind = EntryKind.SETTLE
        _end(rows, hold, HoldState.SETTLED, now, changes)
        used = max(settle.prompt_tokens, 0) + max(settle.completion_tokens, 0)
        _give_back_tokens(rows.keys[hold.key_id], hold, hold.tokens - used, now)
    else:
        # The lease expired, or the hold was lost. Other calls may have spent or held the credit.
        kind = EntryKind.ADJUST
        hold.charged = min(hold.charged, account.balance - account.held)
        hold.state = HoldState.SETTLED
        changes.ended.append(hold.id)
    account.balance -= hold.charged
    changes.accounts.add(account.id)
    if hold.windows is not None:
        _end_in_budgets(rows, hold, changes, charge=hold.charged)
    if place is not None and claim is not None:
        claims.store(rows, settle, place, claim, now, changes)
    changes.entries.append(
        Entry(
            account_id=account.id,
            kind=kind,
            amount=-hold.charged,
            created_at=now,
            hold_id=hold.id,
            key_id=hold.key_id,
            model=hold.model,
            prompt_tokens=settle.prompt_tokens,
            completion_tokens=settle.completion_tokens,
            partial=settle.partial,
            estimated=settle.estimated,
            prices_from=settle.prices_from,
        )
    )
    entry_events.note(changes, changes.entries[-1], account)
    if changes.thresholds and hold.windows is not None:
        _note_budgets(rows, hold, changes)
    return Ended(state=hold.state, charged=hold.charged, lost=charge - hold.charged)


def _lost_hold(rows: Rows, settle: Settle, now: int, changes: Changes) -> Hold | None:
    """Return the hold of a settlement that the store does not know, as an expired one.

    A store that loses power can lose holds that were not on disk. Return None if the hold could be
    of another store, or if it is so old that it can have been settled and deleted.
    """
    place = settle.place
    key = rows.keys.get(settle.key_id)
    chain = _chain(rows, settle.account_id)
    if place is None or key is None or not chain:
        return None
    is_ours = key.account_id == settle.account_id and key.created_at == place.key_created_at
    if not is_ours or settle.hold_id < first_at(max(now - KEPT, 0)):
        return None
    scopes = _scopes(key, chain, now, changes)
    hold = rows.holds[settle.hold_id] = Hold(
        id=settle.hold_id,
        account_id=chain[-1].id,
        key_id=settle.key_id,
        amount=place.amount,
        tokens=place.tokens,
        model=place.model,
        owner=place.owner,
        created_at=now,
        lease_until=now,
        state=HoldState.EXPIRED,
        ended_at=now,
        # The windows in which it was placed are lost too: its charge counts now.
        windows=";".join([budgets.serials(scope) for _, scope in scopes]) if scopes else None,
    )
    changes.placed.append(hold.id)
    return hold


def _release(rows: Rows, release: Release, now: int, changes: Changes) -> Ended:
    hold = rows.holds.get(release.hold_id)
    if hold is None:
        return Ended(state=None)
    if release.claim and hold.state is not HoldState.SETTLED:
        claims.free(rows, release.claim, hold.id, changes)
    return _give_up(rows, hold, now, changes)


def _give_up(rows: Rows, hold: Hold, now: int, changes: Changes) -> Ended:
    """End a hold without a charge, unless it has ended."""
    if hold.state is HoldState.OPEN:
        _end(rows, hold, HoldState.RELEASED, now, changes)
        _give_back_tokens(rows.keys[hold.key_id], hold, hold.tokens, now)
    return Ended(state=hold.state, charged=hold.charged)


def _expire(rows: Rows, expire: Expire, now: int, changes: Changes) -> Ended:
    hold = rows.holds.get(expire.hold_id)
    if hold is None or (hold.state is HoldState.OPEN and now < hold.lease_until):
        return Ended(state=None)
    if hold.state is HoldState.OPEN:
        # Its usage is unknown, so its tokens stay taken.
        _end(rows, hold, HoldState.EXPIRED, now, changes)
    return Ended(state=hold.state, charged=hold.charged)


def _end(rows: Rows, hold: Hold, state: HoldState, now: int, changes: Changes) -> None:
    """End an open hold."""
    account = rows.accounts[hold.account_id]
    key = rows.keys[hold.key_id]
    hold.state = state
    hold.ended_at = now
    account.held -= hold.amount
    if hold.windows is not None:
        _end_in_budgets(rows, hold, changes, held=hold.amount)
    key.running -= 1
    changes.accounts.add(account.id)
    changes.keys.add(key.id)
    changes.ended.append(hold.id)


def _end_in_budgets(
    rows: Rows, hold: Hold, changes: Changes, *, held: int = 0, charge: int = 0
) -> None:
    """End a hold, or count its charge, in the windows in which it was placed."""
    key = rows.keys[hold.key_id]
    chain = _chain(rows, key.account_id)
    of_key, *of_accounts = (hold.windows or "").split(";")
    budgets.end(key.budgets, of_key, held=held, charge=charge)
    changes.keys.add(key.id)
    for account, counted in zip(chain, of_accounts, strict=True):
        budgets.end(account.budgets, counted, held=held, charge=charge)
        changes.accounts.add(account.id)


def _note_budgets(rows: Rows, hold: Hold, changes: Changes) -> None:
    """Add the events of the last entry in the budgets in which its hold was placed."""
    entry, key = changes.entries[-1], rows.keys[hold.key_id]
    chain = _chain(rows, key.account_id)
    of_key, *of_accounts = (hold.windows or "").split(";")
    entry_events.note_budget(
        changes, entry, key.budgets, of_key, account_id=key.account_id, key_id=key.id
    )
    for account, counted in zip(chain, of_accounts, strict=True):
        entry_events.note_budget(changes, entry, account.budgets, counted, account_id=account.id)


def _give_back_tokens(key: Key, hold: Hold, unused: int, now: int) -> None:
    limit = key.tokens_per_minute
    if limit is not None and unused > 0:
        key.tokens_tat = rate_limits.give_back(limit, key.tokens_tat, now, unused, hold.created_at)


def _grant(rows: Rows, grant: Grant, now: int, changes: Changes) -> Granted:
    account = rows.accounts.get(grant.account_id)
    if account is None or account.parent_id is not None:
        return Granted(balance=None)
    done = (account.id, grant.idempotency_id)
    if done in rows.grants:
        return Granted(balance=account.balance)
    if not account.held <= account.balance + grant.amount <= LARGEST_BALANCE:
        return Granted(balance=None)
    rows.grants.add(done)
    account.balance += grant.amount
    changes.accounts.add(account.id)
    changes.entries.append(
        Entry(
            account_id=account.id,
            kind=EntryKind.GRANT if grant.amount > 0 else EntryKind.DEDUCT,
            amount=grant.amount,
            created_at=now,
            idempotency_id=grant.idempotency_id,
        )
    )
    if grant.amount > 0:
        account.full_balance = account.balance
    else:
        entry_events.note(changes, changes.entries[-1], account)
    return Granted(balance=account.balance)

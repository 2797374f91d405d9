"""The operations on accounts: a pure function from rows and operations to rows and outcomes.

    decide(rows, [operation, …], now) -> [outcome, …], changes      rows are changed in place

It reads no clock and no store. Operations are applied in the order of their arrival, each to the
result of the preceding ones. A rejected operation changes nothing.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from service.ledger import rate_limits
from service.ledger.ids import first_at
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
from service.model_names import allows

LARGEST_BALANCE: Final = 2**62
"""Maximum balance in nano-credits: some four billion credits, half of the store's integer range."""

KEPT: Final = 30 * 24 * 3600 * 10**9
"""Nanoseconds for which a hold is kept after its end. A settlement can wait that long in a
journal."""

CONCURRENCY_WAIT: Final = 10**9
"""The wait in nanoseconds that is reported at the limit of concurrent calls."""


def decide(rows: Rows, operations: Sequence[Operation], now: int) -> tuple[list[Outcome], Changes]:
    """Apply operations to rows.

    Args:
        rows: Every existing row that an operation names.
        operations: The operations in the order of their arrival.
        now: The store's clock.
    """
    changes = Changes()
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
        outcomes.append(outcome)
    return outcomes, changes


def _place(rows: Rows, place: Place, now: int, changes: Changes) -> Placed | Refused:
    key = rows.keys.get(place.key_id)
    account = rows.accounts.get(place.account_id)
    if key is None or account is None or key.account_id != account.id:
        return Refused(refusal=Refusal.KEY)
    placed = rows.holds.get(place.hold_id)
    if placed is not None:
        if not _is_same(placed, place):
            raise ValueError("the id is that of another hold")
        # Sent again, because the response was lost. A revocation in the meantime changes nothing.
        return Placed(requests=_requests(key, now), tokens=_tokens(key, now))
    if not (is_valid(key, now) and _is_secret_valid(key, place, now)):
        return Refused(refusal=Refusal.KEY)
    if account.suspended_at is not None or key.suspended_at is not None:
        return Refused(refusal=Refusal.SUSPENDED)
    refused = _beyond_account(account, key, place) or _take(key, place, now, changes)
    if refused is not None:
        return structs.replace(refused, requests=_requests(key, now), tokens=_tokens(key, now))
    key.running += 1
    key.used_at = now
    account.held += place.amount
    rows.holds[place.hold_id] = Hold(
        id=place.hold_id,
        account_id=account.id,
        key_id=key.id,
        amount=place.amount,
        tokens=place.tokens,
        model=place.model,
        owner=place.owner,
        created_at=now,
        lease_until=now + place.lease,
    )
    changes.accounts.add(account.id)
    changes.keys.add(key.id)
    changes.placed.append(place.hold_id)
    return Placed(requests=_requests(key, now), tokens=_tokens(key, now))


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


def _beyond_account(account: Account, key: Key, place: Place) -> Refused | None:
    if not allows(key.models, place.model):
        return Refused(refusal=Refusal.MODEL)
    if place.amount > account.balance:
        return Refused(refusal=Refusal.CREDIT, available=account.balance)
    available = account.balance - account.held
    if place.amount > available:
        return Refused(refusal=Refusal.HELD, available=available)
    return None


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
        return Refused(refusal=refusal, wait=longest)
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
    return Ended(state=hold.state, charged=hold.charged, lost=charge - hold.charged)


def _lost_hold(rows: Rows, settle: Settle, now: int, changes: Changes) -> Hold | None:
    """Return the hold of a settlement that the store does not know, as an expired one.

    A store that loses power can lose holds that were not on disk. Return None if the hold could be
    of another store, or if it is so old that it can have been settled and deleted.
    """
    place = settle.place
    key = rows.keys.get(settle.key_id)
    if place is None or key is None or settle.account_id not in rows.accounts:
        return None
    is_ours = key.account_id == settle.account_id and key.created_at == place.key_created_at
    if not is_ours or settle.hold_id < first_at(max(now - KEPT, 0)):
        return None
    hold = rows.holds[settle.hold_id] = Hold(
        id=settle.hold_id,
        account_id=settle.account_id,
        key_id=settle.key_id,
        amount=place.amount,
        tokens=place.tokens,
        model=place.model,
        owner=place.owner,
        created_at=now,
        lease_until=now,
        state=HoldState.EXPIRED,
        ended_at=now,
    )
    changes.placed.append(hold.id)
    return hold


def _release(rows: Rows, release: Release, now: int, changes: Changes) -> Ended:
    hold = rows.holds.get(release.hold_id)
    if hold is None:
        return Ended(state=None)
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
    key.running -= 1
    changes.accounts.add(account.id)
    changes.keys.add(key.id)
    changes.ended.append(hold.id)


def _give_back_tokens(key: Key, hold: Hold, unused: int, now: int) -> None:
    limit = key.tokens_per_minute
    if limit is not None and unused > 0:
        key.tokens_tat = rate_limits.give_back(limit, key.tokens_tat, now, unused, hold.created_at)


def _grant(rows: Rows, grant: Grant, now: int, changes: Changes) -> Granted:
    account = rows.accounts.get(grant.account_id)
    if account is None:
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
    return Granted(balance=account.balance)

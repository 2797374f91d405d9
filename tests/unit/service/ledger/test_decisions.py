"""Each operation, and orders of operations that must not do harm."""

from copy import deepcopy
from itertools import permutations
from typing import Any

import pytest
from msgspec.structs import replace

from service.ledger.decisions import CONCURRENCY_WAIT, KEPT, LARGEST_BALANCE, decide
from service.ledger.rate_limits import MINUTE, Level
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

NOW = 1_800_000_000 * 10**9
SECOND = 10**9
LEASE = 300 * SECOND


def rows(*, balance: int = 1000, **key: Any) -> Rows:
    return Rows(
        accounts={1: Account(id=1, balance=balance, held=0)},
        keys={1: Key(id=1, account_id=1, **key)},
    )


def place(name: str = "h", **members: Any) -> Place:
    plain: dict[str, Any] = {
        "account_id": 1,
        "key_id": 1,
        "amount": 100,
        "tokens": 10,
        "model": "m",
        "owner": "o",
        "lease": LEASE,
    }
    return Place(hold_id=name, **{**plain, **members})


def settle(name: str = "h", charge: int = 60, **members: Any) -> Settle:
    plain: dict[str, Any] = {"prompt_tokens": 2, "completion_tokens": 3}
    return Settle(hold_id=name, account_id=1, key_id=1, charge=charge, **{**plain, **members})


def release(name: str = "h") -> Release:
    return Release(hold_id=name, account_id=1, key_id=1)


def expire(name: str = "h") -> Expire:
    return Expire(hold_id=name, account_id=1, key_id=1)


def grant(amount: int, idempotency_id: str = "g", account_id: int = 1) -> Grant:
    return Grant(account_id=account_id, amount=amount, idempotency_id=idempotency_id)


def one(state: Rows, operation: Operation, now: int = NOW) -> Outcome:
    return decide(state, [operation], now)[0][0]


def refused(state: Rows, operation: Operation, now: int = NOW) -> Refused:
    outcome = one(state, operation, now)
    assert isinstance(outcome, Refused)
    return outcome


# --------------------------------------------------------------------------------------- place


def test_a_hold_is_placed() -> None:
    state = rows(requests_per_minute=60, tokens_per_minute=600, concurrency=3)
    outcomes, changes = decide(state, [place()], NOW)
    assert outcomes == [Placed(requests=Level(60, 59, SECOND), tokens=Level(600, 590, SECOND))]
    assert changes == Changes(accounts={1}, keys={1}, placed=["h"])
    assert state.accounts[1] == Account(id=1, balance=1000, held=100)
    assert state.keys[1].running == 1
    assert state.holds["h"] == Hold(
        id="h",
        account_id=1,
        key_id=1,
        amount=100,
        tokens=10,
        model="m",
        owner="o",
        created_at=NOW,
        lease_until=NOW + LEASE,
    )


@pytest.mark.parametrize(
    "key",
    [
        {"revoked_at": NOW},
        {"revoked_at": NOW + SECOND},  # by a clock that was ahead
        {"expires_at": NOW},
        {"expires_at": NOW - 1},
    ],
)
def test_a_key_that_is_not_valid_is_refused(key: dict[str, int]) -> None:
    assert one(rows(**key), place()) == Refused(refusal=Refusal.KEY)


def test_a_key_is_valid_until_the_moment_it_expires() -> None:
    assert isinstance(one(rows(expires_at=NOW + 1), place()), Placed)


@pytest.mark.parametrize("members", [{"key_id": 2}, {"account_id": 2}, {"account_id": 3}])
def test_a_key_spends_only_the_credit_of_its_account(members: dict[str, Any]) -> None:
    state = rows()
    state.accounts[2] = Account(id=2, balance=10**9, held=0)
    assert one(state, place(**members)) == Refused(refusal=Refusal.KEY)


def test_a_model_that_the_key_may_not_use() -> None:
    assert refused(rows(models=frozenset({"other"})), place()).refusal is Refusal.MODEL
    assert refused(rows(models=frozenset()), place()).refusal is Refusal.MODEL
    assert isinstance(one(rows(models=frozenset({"m"})), place()), Placed)


@pytest.mark.parametrize(
    ("balance", "held", "expected"),
    [
        (100, 0, None),
        (99, 0, Refused(refusal=Refusal.CREDIT, available=99)),
        (0, 0, Refused(refusal=Refusal.CREDIT, available=0)),
        (200, 100, None),
        (199, 100, Refused(refusal=Refusal.HELD, available=99)),
        (100, 100, Refused(refusal=Refusal.HELD, available=0)),
        (99, 99, Refused(refusal=Refusal.CREDIT, available=99)),
    ],
)
def test_the_credit_covers_the_hold(balance: int, held: int, expected: Refused | None) -> None:
    state = rows()
    state.accounts[1] = Account(id=1, balance=balance, held=held)
    outcome = one(state, place())
    assert outcome == expected or (expected is None and isinstance(outcome, Placed))


def test_an_empty_account_may_use_what_costs_nothing() -> None:
    assert isinstance(one(rows(balance=0), place(amount=0)), Placed)


LIMITS: dict[str, tuple[dict[str, int], dict[str, int], Refusal, int]] = {
    "concurrency": ({"concurrency": 1}, {}, Refusal.CONCURRENCY, CONCURRENCY_WAIT),
    "none at a time": ({"concurrency": 0}, {}, Refusal.CONCURRENCY, CONCURRENCY_WAIT),
    "requests": ({"requests_per_minute": 1}, {}, Refusal.REQUESTS, MINUTE),
    "tokens": ({"tokens_per_minute": 12}, {}, Refusal.TOKENS, MINUTE * 8 // 12),
    "more tokens than ever": ({"tokens_per_minute": 9}, {}, Refusal.TOKENS, 0),
}


@pytest.mark.parametrize(("key", "members", "refusal", "wait"), LIMITS.values(), ids=LIMITS)
def test_a_limit(key: dict[str, int], members: dict[str, int], refusal: Refusal, wait: int) -> None:
    state = rows(**key)
    one(state, place("first"))
    outcome = refused(state, place("second", **members))
    assert (outcome.refusal, outcome.wait, outcome.available) == (refusal, wait, 0)
    assert (outcome.requests is None) == ("requests_per_minute" not in key)
    assert (outcome.tokens is None) == ("tokens_per_minute" not in key)


LONGEST: dict[str, tuple[dict[str, int], Refusal, int]] = {
    "requests, then tokens": (
        {"requests_per_minute": 1, "tokens_per_minute": 12},
        Refusal.REQUESTS,
        MINUTE,
    ),
    "tokens, then requests": (
        {"requests_per_minute": 1, "tokens_per_minute": 10},
        Refusal.REQUESTS,  # equally long: the first
        MINUTE,
    ),
    "tokens and concurrency": (
        {"concurrency": 1, "tokens_per_minute": 12},
        Refusal.TOKENS,
        MINUTE * 8 // 12,
    ),
    "requests and concurrency": (
        {"concurrency": 1, "requests_per_minute": 1},
        Refusal.REQUESTS,
        MINUTE,
    ),
    "none that waiting helps": (
        {"concurrency": 1, "requests_per_minute": 1, "tokens_per_minute": 9},
        Refusal.TOKENS,
        0,
    ),
}


@pytest.mark.parametrize(("key", "refusal", "wait"), LONGEST.values(), ids=LONGEST)
def test_of_several_limits_the_one_that_refuses_longest_is_told(
    key: dict[str, int], refusal: Refusal, wait: int
) -> None:
    state = rows(**key)
    one(state, place("first", tokens=min(10, key.get("tokens_per_minute", 10))))
    outcome = refused(state, place("second"))
    assert (outcome.refusal, outcome.wait) == (refusal, wait)
    if wait:
        if "concurrency" in key:
            one(state, settle("first", prompt_tokens=10))
        refused(state, place(), NOW + wait - 1)
        assert isinstance(one(state, place(), NOW + wait), Placed)


def test_tokens_are_told_where_they_take_longer_than_requests() -> None:
    state = rows(requests_per_minute=60, tokens_per_minute=12)
    one(state, place("first"))
    state.keys[1].requests_tat = NOW + MINUTE  # as after 60
    outcome = refused(state, place("second"))
    assert (outcome.refusal, outcome.wait) == (Refusal.TOKENS, MINUTE * 8 // 12)


@pytest.mark.parametrize(("key", "members", "refusal", "wait"), LIMITS.values(), ids=LIMITS)
def test_all_or_nothing(
    key: dict[str, int], members: dict[str, int], refusal: Refusal, wait: int
) -> None:
    state = rows(**{"requests_per_minute": 5, "tokens_per_minute": 50, **key})
    one(state, place("first"))
    account, taken = replace(state.accounts[1]), replace(state.keys[1])
    outcomes, changes = decide(state, [place("second", **members)], NOW)
    assert isinstance(outcomes[0], Refused)
    assert changes == Changes()
    assert (state.accounts[1], state.keys[1]) == (account, taken)
    assert "second" not in state.holds


def test_it_is_admitted_after_the_wait_and_not_before() -> None:
    state = rows(requests_per_minute=7)
    for number in range(7):
        assert isinstance(one(state, place(f"{number}")), Placed)
    wait = refused(state, place()).wait
    assert refused(state, place(), NOW + wait - 1).wait == 1
    assert isinstance(one(state, place(), NOW + wait), Placed)


def test_what_is_refused_again_and_again_does_not_wait_longer_for_it() -> None:
    state = rows(requests_per_minute=1)
    one(state, place("first"))
    for millisecond in range(0, 60_000, 100):
        assert refused(state, place(), NOW + millisecond * 10**6).refusal is Refusal.REQUESTS
    assert isinstance(one(state, place(), NOW + MINUTE), Placed)


def test_small_requests_find_no_gap_in_a_limit_that_divides_no_minute() -> None:
    limit = 7_000_000
    state = rows(tokens_per_minute=limit, balance=10**9)
    one(state, place("all", tokens=limit))
    for number in range(1000):
        assert isinstance(one(state, place(f"{number}", tokens=400)), Refused)


def test_a_clock_that_is_set_back_an_hour_shuts_nobody_out_for_an_hour() -> None:
    state = rows(requests_per_minute=60, tokens_per_minute=600)
    for number in range(60):
        one(state, place(f"{number}", amount=0))
    now = NOW - 3600 * SECOND
    outcomes, changes = decide(state, [place(amount=0)], now)
    assert isinstance(outcomes[0], Refused)
    assert (outcomes[0].refusal, outcomes[0].wait) == (Refusal.REQUESTS, SECOND)
    assert changes == Changes(keys={1})
    assert isinstance(one(state, place(amount=0), now + SECOND), Placed)


def test_a_clock_that_is_set_back_opens_no_second_bucket() -> None:
    state = rows(requests_per_minute=60)
    for number in range(60):
        one(state, place(f"{number}", amount=0))
    for minutes in range(1, 10):
        assert isinstance(one(state, place(amount=0), NOW - minutes * MINUTE), Refused)


# ----------------------------------------------------------------------------- sent once more


def test_a_hold_is_placed_once() -> None:
    state = rows(requests_per_minute=60, concurrency=2)
    assert one(state, place()) == one(state, place())
    assert (state.accounts[1].held, state.keys[1].running) == (100, 1)


@pytest.mark.parametrize(
    "change",
    [{"revoked_at": NOW}, {"expires_at": NOW}, {"models": frozenset()}, {"concurrency": 0}],
)
def test_a_hold_that_was_placed_stays_placed_whatever_the_key_may_now(
    change: dict[str, Any],
) -> None:
    state = rows()
    one(state, place())
    state.keys[1] = replace(state.keys[1], **change)
    assert isinstance(one(state, place()), Placed)


@pytest.mark.parametrize("end", [settle(), release(), expire()])
def test_a_hold_that_ended_is_not_placed_anew(end: Operation) -> None:
    state = rows()
    one(state, place())
    one(state, end, NOW + LEASE)
    assert isinstance(one(state, place(), NOW + LEASE), Placed)
    assert (state.accounts[1].held, state.keys[1].running) == (0, 0)


@pytest.mark.parametrize(
    "members", [{"amount": 0}, {"tokens": 0}, {"model": "dear"}, {"owner": "another"}]
)
def test_a_hold_never_serves_two_requests(members: dict[str, Any]) -> None:
    state = rows()
    one(state, place())
    with pytest.raises(ValueError, match="another hold"):
        one(state, place(**members))
    state.keys[2] = Key(id=2, account_id=1)
    with pytest.raises(ValueError, match="another hold"):
        one(state, place(key_id=2))


ENDS = (settle(charge=60), settle(charge=99), release(), expire())


@pytest.mark.parametrize("order", list(permutations(ENDS)))
def test_a_hold_ends_once_in_whatever_order_its_ends_come(order: tuple[Operation, ...]) -> None:
    state = rows()
    one(state, place())
    outcomes, changes = decide(state, [*order, *order], NOW + LEASE)
    # A release is final unless a settlement came before. A settlement can follow an expiry.
    released = order[0] == release()
    charged = 0 if released else next(o.charge for o in order if isinstance(o, Settle))
    for operation, outcome in zip(order, outcomes[4:], strict=True):
        lost = max(operation.charge - charged, 0) if isinstance(operation, Settle) else 0
        final = HoldState.RELEASED if released else HoldState.SETTLED
        assert outcome == Ended(state=final, charged=charged, lost=lost)
    assert [-entry.amount for entry in changes.entries] == ([] if released else [charged])
    assert state.accounts[1] == Account(id=1, balance=1000 - charged, held=0)
    assert state.keys[1].running == 0


def test_credit_is_granted_once() -> None:
    state = rows(balance=0)
    outcomes, changes = decide(state, [grant(50), grant(50), grant(70), grant(1, "other")], NOW)
    assert outcomes == [Granted(balance=b) for b in (50, 50, 50, 51)]
    assert [entry.amount for entry in changes.entries] == [50, 1]


# --------------------------------------------------------------------------------------- ends


def test_a_settlement_charges_what_was_used() -> None:
    state = rows()
    one(state, place())
    outcomes, changes = decide(state, [settle(partial=True, estimated=True)], NOW + 1)
    assert outcomes == [Ended(state=HoldState.SETTLED, charged=60)]
    assert state.accounts[1] == Account(id=1, balance=940, held=0)
    assert (state.holds["h"].ended_at, state.holds["h"].charged) == (NOW + 1, 60)
    assert changes == Changes(
        accounts={1},
        keys={1},
        ended=["h"],
        entries=[
            Entry(
                account_id=1,
                kind=EntryKind.SETTLE,
                amount=-60,
                created_at=NOW + 1,
                hold_id="h",
                key_id=1,
                model="m",
                prompt_tokens=2,
                completion_tokens=3,
                partial=True,
                estimated=True,
            )
        ],
    )


def test_usage_above_the_hold_is_our_loss() -> None:
    state = rows(balance=100)
    one(state, place())
    lost = Ended(state=HoldState.SETTLED, charged=100, lost=2**63)
    assert one(state, settle(charge=100 + 2**63)) == lost
    assert state.accounts[1] == Account(id=1, balance=0, held=0)
    assert one(state, settle(charge=100 + 2**63)) == lost


def test_a_negative_charge_adds_no_credit() -> None:
    state = rows()
    one(state, place())
    assert one(state, settle(charge=-(10**6))) == Ended(state=HoldState.SETTLED)
    assert state.accounts[1] == Account(id=1, balance=1000, held=0)


def test_what_costs_nothing_is_in_the_ledger_all_the_same() -> None:
    state = rows()
    _, changes = decide(state, [place(), settle(charge=0)], NOW)
    assert [(e.amount, e.prompt_tokens) for e in changes.entries] == [(0, 2)]


@pytest.mark.parametrize("operation", [settle("x"), release("x"), expire("x")])
def test_a_hold_that_never_was_cannot_end(operation: Operation) -> None:
    state = rows()
    outcomes, changes = decide(state, [operation], NOW)
    assert outcomes == [Ended(state=None)]
    assert (state, changes) == (rows(), Changes())


def lost(name: str = "h", amount: int = 100, since: int = 7) -> Settle:
    """Return a settlement with its hold, which the store lost."""
    return settle(name, place=place(name, amount=amount, key_created_at=since))


def test_a_settlement_whose_hold_was_lost_is_charged_once() -> None:
    state = rows(created_at=7, tokens_per_minute=10, concurrency=1)
    outcomes, changes = decide(state, [lost(), lost()], NOW)
    assert outcomes == [Ended(state=HoldState.SETTLED, charged=60)] * 2
    assert changes.placed == ["h"]
    assert [(e.kind, e.amount, e.model) for e in changes.entries] == [(EntryKind.ADJUST, -60, "m")]
    assert state.accounts[1] == Account(id=1, balance=940, held=0)
    assert (state.keys[1].running, state.keys[1].tokens_tat) == (0, 0)
    assert one(state, settle()) == Ended(state=HoldState.SETTLED, charged=60)


@pytest.mark.parametrize(("amount", "charged"), [(100, 60), (50, 50), (0, 0)])
def test_at_most_the_lost_hold_is_charged(amount: int, charged: int) -> None:
    state = rows(created_at=7)
    ended = Ended(state=HoldState.SETTLED, charged=charged, lost=60 - charged)
    assert one(state, lost(amount=amount)) == ended


def test_a_lost_hold_does_not_take_what_others_hold() -> None:
    state = rows(created_at=7, balance=130)
    one(state, place("other"))
    assert one(state, lost()) == Ended(state=HoldState.SETTLED, charged=30, lost=30)
    assert state.accounts[1] == Account(id=1, balance=100, held=100)


@pytest.mark.parametrize(
    "operation",
    [lost(since=8), replace(lost(), account_id=2), replace(lost(), key_id=2), settle()],
    ids=["another key", "another account", "no key", "an old journal"],
)
def test_a_hold_of_another_store_is_not_charged(operation: Settle) -> None:
    state = rows(created_at=7)
    state.accounts[2] = Account(id=2, balance=1000, held=0)
    before = deepcopy(state)
    outcomes, changes = decide(state, [operation], NOW)
    assert outcomes == [Ended(state=None)]
    assert (state, changes) == (before, Changes())


@pytest.mark.parametrize(("age", "charged"), [(KEPT, 60), (KEPT + 1, None)])
def test_a_hold_that_can_have_been_deleted_is_not_charged_again(
    age: int, charged: int | None
) -> None:
    state = rows(created_at=7)
    outcome = one(state, lost(f"{NOW - age:016x}{0:016x}"))
    assert outcome == (
        Ended(state=None) if charged is None else Ended(state=HoldState.SETTLED, charged=charged)
    )


def test_a_release_costs_nothing() -> None:
    state = rows(tokens_per_minute=10, concurrency=1)
    outcomes, changes = decide(state, [place(), release()], NOW)
    assert outcomes[1] == Ended(state=HoldState.RELEASED)
    assert changes.entries == []
    assert state.accounts[1] == Account(id=1, balance=1000, held=0)
    assert isinstance(one(state, place("next")), Placed)  # its tokens are free again


def test_a_lease_is_ended_when_it_is_over_and_not_before() -> None:
    state = rows()
    one(state, place())
    assert one(state, expire(), NOW + LEASE - 1) == Ended(state=None)
    assert state.holds["h"].state is HoldState.OPEN
    assert one(state, expire(), NOW + LEASE) == Ended(state=HoldState.EXPIRED)
    assert (state.accounts[1].held, state.keys[1].running) == (0, 0)


def test_the_reaper_takes_no_charge_from_a_settled_hold() -> None:
    state = rows()
    decide(state, [place(), settle()], NOW)
    assert one(state, expire(), NOW + LEASE) == Ended(state=HoldState.SETTLED, charged=60)
    assert state.accounts[1].balance == 940


# ------------------------------------------------------------------------- settled after expiry


def late(balance: int, held_by_others: int = 0) -> Rows:
    state = rows(balance=100)
    one(state, place())
    one(state, expire(), NOW + LEASE)
    state.accounts[1] = Account(id=1, balance=balance, held=held_by_others)
    return state


@pytest.mark.parametrize(
    ("balance", "held", "charge", "charged"),
    [
        (100, 0, 60, 60),
        (100, 0, 500, 100),  # the hold that it had
        (50, 0, 60, 50),  # what is left
        (0, 0, 60, 0),
        (100, 70, 60, 30),  # the part that is not held
        (100, 100, 60, 0),
    ],
)
def test_a_late_settlement_takes_what_is_free(
    balance: int, held: int, charge: int, charged: int
) -> None:
    state = late(balance, held)
    outcomes, changes = decide(state, [settle(charge=charge)], NOW + 2 * LEASE)
    outcome = Ended(state=HoldState.SETTLED, charged=charged, lost=charge - charged)
    assert outcomes == [outcome]
    assert [(e.kind, e.amount, e.prompt_tokens) for e in changes.entries] == [
        (EntryKind.ADJUST, -charged, 2)
    ]
    assert changes.ended == ["h"]
    assert state.accounts[1] == Account(id=1, balance=balance - charged, held=held)
    assert state.keys[1].running == 0


@pytest.mark.parametrize("balance", [0, 50, 100])
def test_a_late_settlement_is_taken_once_even_if_credit_comes_afterwards(balance: int) -> None:
    state = late(balance)
    first = one(state, settle())
    one(state, grant(10**6))
    before = state.accounts[1].balance
    outcomes, changes = decide(state, [settle(), settle(charge=99)], NOW)
    assert outcomes[0] == first
    assert changes == Changes()
    assert state.accounts[1].balance == before


def test_a_late_release_of_an_expired_hold_changes_nothing() -> None:
    state = late(100)
    outcomes, changes = decide(state, [release()], NOW)
    assert (outcomes, changes) == ([Ended(state=HoldState.EXPIRED)], Changes())


# ------------------------------------------------------------------------ tokens per minute


@pytest.mark.parametrize(
    ("prompt", "completion", "remaining"),
    [
        (2, 3, 95),
        (10, 0, 90),
        (10, 90, 90),  # more than held: the rest was never taken
        (0, 0, 100),
        (-(2**63), 3, 97),  # an invalid count returns at most what was taken
        (2**63 - 1, 2**63 - 1, 90),
    ],
)
def test_tokens_that_were_not_used_are_given_back(
    prompt: int, completion: int, remaining: int
) -> None:
    state = rows(tokens_per_minute=100)
    one(state, place())
    one(state, settle(prompt_tokens=prompt, completion_tokens=completion))
    outcome = one(state, place("next", tokens=0))
    assert isinstance(outcome, Placed)
    assert outcome.tokens is not None
    assert outcome.tokens.remaining == remaining


def test_tokens_are_given_back_once() -> None:
    state = rows(tokens_per_minute=100)
    one(state, place("other", tokens=50))
    one(state, place())
    for _ in range(3):
        decide(state, [settle(prompt_tokens=0, completion_tokens=0), release()], NOW)
    assert refused(state, place("next", tokens=51)).refusal is Refusal.TOKENS
    assert isinstance(one(state, place("next", tokens=50)), Placed)


def test_what_a_hold_used_that_expired_is_not_known_and_its_tokens_stay_taken() -> None:
    state = rows(tokens_per_minute=10)
    one(state, place(lease=SECOND))
    one(state, expire(), NOW + SECOND)
    assert refused(state, place("next"), NOW + SECOND).refusal is Refusal.TOKENS


def test_long_calls_that_give_back_save_up_no_more_than_a_bucket() -> None:
    state = rows(tokens_per_minute=10, balance=10**6)
    for minute in range(10):
        assert isinstance(one(state, place(f"{minute}"), NOW + minute * MINUTE), Placed)
    now = NOW + 10 * MINUTE
    decide(state, [release(f"{minute}") for minute in range(10)], now)
    assert isinstance(one(state, place("next"), now), Placed)
    assert refused(state, place("one more", tokens=1), now).refusal is Refusal.TOKENS


def test_long_calls_that_used_nothing_do_not_make_room_one_after_the_other() -> None:
    state = rows(tokens_per_minute=10, balance=10**6)
    for minute in range(10):
        assert isinstance(one(state, place(f"{minute}"), NOW + minute * MINUTE), Placed)
    now = NOW + 10 * MINUTE
    assert isinstance(one(state, place("next"), now), Placed)
    for minute in range(10):
        one(state, release(f"{minute}"), now)
        assert refused(state, place("more", tokens=1), now).refusal is Refusal.TOKENS


def test_a_call_gives_back_what_was_not_refilled_since() -> None:
    state = rows(tokens_per_minute=10)
    one(state, place())
    half = NOW + MINUTE // 2
    outcome = one(state, place("half", tokens=5), half)
    assert isinstance(outcome, Placed)
    one(state, release(), half)
    assert isinstance(one(state, place("next", tokens=5), half), Placed)
    assert refused(state, place("more", tokens=1), half).refusal is Refusal.TOKENS


# -------------------------------------------------------------------------------------- grants


def test_a_grant() -> None:
    state = rows(balance=5)
    outcomes, changes = decide(state, [grant(10)], NOW)
    assert outcomes == [Granted(balance=15)]
    entry = Entry(account_id=1, kind=EntryKind.GRANT, amount=10, created_at=NOW, idempotency_id="g")
    assert changes == Changes(accounts={1}, entries=[entry])


@pytest.mark.parametrize("operation", [grant(1, account_id=2), grant(LARGEST_BALANCE), grant(-901)])
def test_a_grant_that_cannot_be(operation: Grant) -> None:
    state = rows()
    one(state, place())
    outcomes, changes = decide(state, [operation, operation], NOW)
    assert outcomes == [Granted(balance=None)] * 2
    assert changes == Changes()
    assert state.accounts[1].balance == 1000


def test_the_largest_balance() -> None:
    state = rows(balance=1)
    assert one(state, grant(LARGEST_BALANCE - 1)) == Granted(balance=LARGEST_BALANCE)
    assert one(state, grant(1, "other")) == Granted(balance=None)


def test_the_same_idempotency_id_in_another_account_is_another_grant() -> None:
    state = rows(balance=0)
    state.accounts[2] = Account(id=2, balance=0, held=0)
    outcomes, _ = decide(state, [grant(1), grant(2, account_id=2)], NOW)
    assert outcomes == [Granted(balance=1), Granted(balance=2)]


# ------------------------------------------------------------------------------------- batches


def test_a_thousand_requests_with_credit_for_a_hundred() -> None:
    state = rows(balance=100 * 100)
    outcomes, changes = decide(state, [place(f"{n}") for n in range(1000)], NOW)
    assert sum(isinstance(outcome, Placed) for outcome in outcomes) == 100
    assert len(changes.placed) == 100
    decide(state, [settle(f"{n}", charge=100) for n in range(1000)], NOW)
    assert state.accounts[1] == Account(id=1, balance=0, held=0)


def test_a_released_hold_makes_room_for_one_after_it_in_the_same_batch() -> None:
    state = rows(balance=100, concurrency=1)
    outcomes, changes = decide(state, [place("a"), place("b"), release("a"), place("c")], NOW)
    assert [isinstance(outcome, Placed) for outcome in outcomes] == [True, False, False, True]
    assert (changes.placed, changes.ended) == (["a", "c"], ["a"])


def test_a_large_request_is_not_starved_by_small_ones_once_it_has_waited() -> None:
    state = rows(tokens_per_minute=100, balance=10**6)
    one(state, place("small", tokens=60))
    wait = refused(state, place("large", tokens=100)).wait
    assert isinstance(one(state, place("large", tokens=100), NOW + wait), Placed)


def test_the_keys_of_an_account_have_limits_of_their_own_and_share_the_credit() -> None:
    state = rows(balance=200, concurrency=1)
    state.keys[2] = Key(id=2, account_id=1, concurrency=1)
    assert isinstance(one(state, place("a")), Placed)
    assert refused(state, place("b")).refusal is Refusal.CONCURRENCY
    assert isinstance(one(state, place("b", key_id=2)), Placed)
    assert (state.keys[1].running, state.keys[2].running) == (1, 1)
    state.keys[2].concurrency = None
    assert refused(state, place("c", key_id=2)).refusal is Refusal.HELD


@pytest.mark.parametrize("operations", [[settle()], [release()], [expire()]])
def test_a_revoked_key_still_pays_for_what_it_began(operations: list[Operation]) -> None:
    state = rows()
    one(state, place())
    state.keys[1].revoked_at = NOW
    outcomes, _ = decide(state, operations, NOW + LEASE)
    assert isinstance(outcomes[0], Ended)
    assert outcomes[0].state is not None
    assert (state.accounts[1].held, state.keys[1].running) == (0, 0)

"""What `decide` does with budgets, and with the accounts above a key's."""

from typing import Any

import pytest

from service.ledger import budgets
from service.ledger.budgets import Window
from service.ledger.decisions import decide
from service.ledger.rows import (
    Account,
    Ended,
    EntryKind,
    Exceeded,
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
    Rows,
    Settle,
)

NOW = 1_800_000_000 * 10**9
DAY = 24 * 3600 * 10**9
LEASE = 300 * 10**9


def rows(*, balance: int = 10_000, **limits: int) -> Rows:
    """Return a company (1), a group (2) and a team in it (3) whose key (9) has a model.

    Args:
        balance: The balance of the company.
        limits: The daily budgets: of `key`, `team`, `group` and `company`.
    """

    def of(name: str) -> budgets.Budgets | None:
        return budgets.put(None, Window.DAY, limits[name], "UTC", NOW) if name in limits else None

    return Rows(
        accounts={
            1: Account(id=1, balance=balance, held=0, budgets=of("company")),
            2: Account(id=2, balance=0, held=0, parent_id=1, budgets=of("group")),
            3: Account(id=3, balance=0, held=0, parent_id=2, budgets=of("team")),
        },
        keys={9: Key(id=9, account_id=3, budgets=of("key"))},
    )


OF: dict[str, Any] = {"account_id": 3, "key_id": 9, "parents": (2, 1)}


def place(name: str = "h", amount: int = 100, **members: Any) -> Place:
    of = {**OF, "tokens": 10, "model": "m", "owner": "o", "lease": LEASE, **members}
    return Place(hold_id=name, amount=amount, **of)


def settle(name: str = "h", charge: int = 60, **members: Any) -> Settle:
    return Settle(
        hold_id=name, charge=charge, prompt_tokens=1, completion_tokens=1, **{**OF, **members}
    )


def one(state: Rows, operation: Operation, now: int = NOW) -> Outcome:
    return decide(state, [operation], now)[0][0]


def refused(state: Rows, operation: Operation, now: int = NOW) -> Refused:
    outcome = one(state, operation, now)
    assert isinstance(outcome, Refused)
    return outcome


def counts(state: Rows) -> dict[str, tuple[int, int]]:
    """Return what is spent and held of each budget."""
    team, group, company = (state.accounts[id_].budgets for id_ in (3, 2, 1))
    scopes = {"key": state.keys[9].budgets, "team": team, "group": group, "company": company}
    return {
        name: (scope.of[0].spent, scope.of[0].held)
        for name, scope in scopes.items()
        if scope is not None
    }


EVERY = {"key": 1000, "team": 1000, "group": 1000, "company": 1000}


def test_a_hold_counts_in_every_budget_above_the_key() -> None:
    state = rows(**EVERY)
    outcomes, changes = decide(state, [place()], NOW)
    assert isinstance(outcomes[0], Placed)
    assert counts(state) == dict.fromkeys(EVERY, (0, 100))
    assert (changes.accounts, changes.keys) == ({1, 2, 3}, {9})
    outcomes, changes = decide(state, [settle()], NOW)
    assert outcomes == [Ended(state=HoldState.SETTLED, charged=60)]
    assert counts(state) == dict.fromkeys(EVERY, (60, 0))
    assert (changes.accounts, changes.keys) == ({1, 2, 3}, {9})


def test_without_budgets_only_the_payer_changes() -> None:
    state = rows()
    _, changes = decide(state, [place(), settle()], NOW)
    assert changes.accounts == {1}
    assert state.holds["h"].windows is None


def test_the_account_at_the_top_pays() -> None:
    state = rows()
    _, changes = decide(state, [place(), settle()], NOW)
    assert [(account.balance, account.held) for account in state.accounts.values()] == [
        (9_940, 0),
        (0, 0),
        (0, 0),
    ]
    (entry,) = changes.entries
    assert (entry.account_id, entry.key_id, state.holds["h"].account_id) == (1, 9, 1)


@pytest.mark.parametrize("suspended", [1, 2, 3])
def test_a_suspended_account_suspends_those_below(suspended: int) -> None:
    state = rows()
    state.accounts[suspended].suspended_at = NOW
    assert refused(state, place()).refusal is Refusal.SUSPENDED


def test_a_chain_that_lacks_an_account_is_nobodys() -> None:
    state = rows()
    del state.accounts[1]
    assert refused(state, place()).refusal is Refusal.KEY
    assert one(state, settle(place=place())) == Ended(state=None)


def test_a_group_gets_no_credit() -> None:
    grant = Grant(account_id=2, amount=5, idempotency_id="g")
    assert one(rows(), grant) == Granted(balance=None)


@pytest.mark.parametrize(
    ("scope", "account_id"), [("key", None), ("team", 3), ("group", 2), ("company", 1)]
)
def test_a_spent_budget_rejects(scope: str, account_id: int | None) -> None:
    state = rows(**{scope: 150})
    decide(state, [place(), settle()], NOW)
    end = NOW - NOW % DAY + DAY
    assert refused(state, place("i")) == Refused(
        refusal=Refusal.BUDGET,
        available=90,
        budget=Exceeded(
            account_id=account_id,
            window=Window.DAY,
            time_zone="UTC",
            limit=150,
            spent=60,
            held=0,
            end=end,
        ),
    )
    assert isinstance(one(state, place("i", amount=90)), Placed)
    assert isinstance(one(state, place("j", amount=90), end), Placed)


def test_a_held_budget_rejects_until_the_hold_ends() -> None:
    state = rows(key=150)
    one(state, place())
    found = refused(state, place("i"))
    assert (found.refusal, found.available) == (Refusal.BUDGET_HELD, 50)
    one(state, Release(hold_id="h", **OF))
    assert isinstance(one(state, place("i")), Placed)


def test_what_no_end_of_a_call_can_change_is_reported_first() -> None:
    # The balance lacks, the budget is spent, the balance is held, the budget is held.
    state = rows(balance=200, key=150)
    decide(state, [place(), settle()], NOW)  # 140 left, the budget 90
    assert refused(state, place("i", amount=141)).refusal is Refusal.CREDIT
    assert refused(state, place("i", amount=140)).refusal is Refusal.BUDGET
    state = rows(balance=200, team=120)
    decide(state, [place("g", amount=20), settle("g", charge=20), place(amount=80)], NOW)
    assert refused(state, place("i", amount=101)).refusal is Refusal.BUDGET
    state = rows(balance=200, key=300)
    one(state, place())
    assert refused(state, place("i", amount=101)).refusal is Refusal.HELD
    state = rows(balance=500, key=150)
    one(state, place())
    assert refused(state, place("i", amount=51)).refusal is Refusal.BUDGET_HELD


def test_a_rejected_hold_takes_from_no_budget() -> None:
    state = rows(key=1000, company=50)
    assert refused(state, place()).available == 50
    assert counts(state) == {"key": (0, 0), "company": (0, 0)}
    state.keys[9].concurrency = 0
    assert refused(state, place(amount=10)).refusal is Refusal.CONCURRENCY
    assert counts(state) == {"key": (0, 0), "company": (0, 0)}


def test_the_next_window_begins_empty_and_is_stored() -> None:
    state = rows(key=150)
    decide(state, [place(), settle()], NOW)
    _, changes = decide(state, [place("i", model="m", amount=10**9)], NOW + DAY)
    assert changes.keys == {9}
    assert counts(state) == {"key": (0, 0)}


@pytest.mark.parametrize("late", [False, True])
def test_a_charge_counts_in_the_window_of_its_hold(*, late: bool) -> None:
    state = rows(key=150)
    one(state, place())
    if late:
        one(state, Expire(hold_id="h", **OF), NOW + LEASE)
    one(state, place("i", amount=1), NOW + DAY)
    one(state, settle(), NOW + DAY)
    assert counts(state) == {"key": (0, 1)}


def test_a_late_charge_counts_in_full() -> None:
    state = rows(key=150)
    one(state, place())
    one(state, Expire(hold_id="h", **OF), NOW + LEASE)
    assert counts(state) == {"key": (0, 0)}
    one(state, place("i", amount=150), NOW + LEASE)
    _, changes = decide(state, [settle()], NOW + LEASE)
    assert changes.entries[0].kind is EntryKind.ADJUST
    assert changes.keys == {9}
    assert counts(state) == {"key": (60, 150)}
    assert refused(state, place("j", amount=1), NOW + LEASE).refusal is Refusal.BUDGET_HELD
    assert isinstance(one(state, place("j", amount=0), NOW + LEASE), Placed)


def test_the_charge_of_a_lost_hold_counts_now() -> None:
    state = rows(**EVERY)
    one(state, settle(place=place()), NOW + DAY)
    assert counts(state) == dict.fromkeys(EVERY, (60, 0))
    one(state, settle(place=place()), NOW + DAY)
    assert counts(state) == dict.fromkeys(EVERY, (60, 0))


def test_a_budget_does_not_count_what_runs_when_it_is_set() -> None:
    state = rows(company=1000)
    one(state, place())
    state.keys[9].budgets = budgets.put(None, Window.DAY, 50, "UTC", NOW)
    one(state, settle())
    assert counts(state) == {"key": (0, 0), "company": (60, 0)}


def test_a_hold_can_outlive_the_budgets_that_counted_it() -> None:
    state = rows(key=1000)
    one(state, place())
    of = state.keys[9].budgets
    assert of is not None
    budgets.remove(of, Window.DAY, NOW)
    assert one(state, settle()) == Ended(state=HoldState.SETTLED, charged=60)

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger import budgets
from service.ledger.budgets import Window
from service.ledger.decisions import decide
from service.ledger.entry_events import crossed
from service.ledger.rows import (
    Account,
    Changes,
    Event,
    EventKind,
    Expire,
    Grant,
    Key,
    Operation,
    Place,
    Release,
    Rows,
    Settle,
)

NOW = 1_800_000_000 * 10**9
USUAL = (50, 80, 100)


def rows(balance: int = 100, full: int = 100) -> Rows:
    return Rows(
        accounts={1: Account(id=1, balance=balance, held=0, full_balance=full)},
        keys={1: Key(id=1, account_id=1)},
    )


def call(name: str, charge: int, **members: Any) -> list[Operation]:
    of: dict[str, Any] = {"hold_id": name, "account_id": 1, "key_id": 1}
    return [
        Place(**of, amount=charge, tokens=0, model="m", owner="o", lease=10**9),
        Settle(**of, charge=charge, prompt_tokens=1, completion_tokens=2, **members),
    ]


def grant(amount: int, name: str = "grant") -> Grant:
    return Grant(account_id=1, amount=amount, idempotency_id=name)


def applied(
    known: Rows, *operations: Operation, thresholds: tuple[int, ...] | None = USUAL
) -> Changes:
    return decide(known, operations, NOW, thresholds)[1]


def told(changes: Changes) -> list[tuple[int | None, int | None, int | None]]:
    return [
        (event.percent, event.whole, event.remaining)
        for event in changes.events
        if event.kind is EventKind.CREDIT_THRESHOLD
    ]


def test_each_charge_has_one_event_with_the_id_of_its_hold() -> None:
    changes = applied(rows(), *call("a", 7), *call("b", 0))
    assert changes.events == [
        Event(
            event_id=name,
            kind=EventKind.USAGE,
            account_id=1,
            created_at=NOW,
            due_at=NOW,
            hold_id=name,
        )
        for name in ("a", "b")
    ]


def test_a_late_charge_has_an_event_and_a_repeated_one_none() -> None:
    known = rows()
    of: dict[str, Any] = {"hold_id": "a", "account_id": 1, "key_id": 1}
    place, settle = call("a", 7)
    decide(known, [place, Expire(**of)], NOW, USUAL)
    known.holds["a"].lease_until = NOW
    decide(known, [Expire(**of)], NOW, USUAL)
    assert [event.event_id for event in applied(known, settle, settle).events] == ["a"]
    assert applied(known, settle).events == []


def test_nothing_else_has_an_event() -> None:
    place, _ = call("a", 7)
    release = Release(hold_id="a", account_id=1, key_id=1)
    assert applied(rows(), place, release, grant(5)).events == []


def test_without_receivers_there_are_no_events() -> None:
    changes = applied(rows(), *call("a", 100), grant(-0 or 1), thresholds=None)
    assert (changes.events, len(changes.entries)) == ([], 2)


def test_without_thresholds_there_is_usage_alone() -> None:
    changes = applied(rows(), *call("a", 100), thresholds=())
    assert [event.kind for event in changes.events] == [EventKind.USAGE]


@pytest.mark.parametrize(
    ("before", "charge", "expected"),
    [
        (100, 49, []),
        (100, 50, [50]),
        (51, 1, [50]),
        (50, 1, []),
        (100, 80, [50, 80]),
        (21, 1, [80]),
        (100, 99, [50, 80]),
        (100, 100, [50, 80, 100]),
        (1, 1, [100]),
    ],
)
def test_a_threshold_is_crossed_where_its_part_is_used(
    before: int, charge: int, expected: list[int]
) -> None:
    changes = applied(rows(before), *call("a", charge))
    assert told(changes) == [(percent, 100, before - charge) for percent in expected]
    ids = [event.event_id for event in changes.events if event.percent]
    assert ids == [f"credit-{percent}-a" for percent in expected]


def test_credit_makes_the_balance_after_it_the_whole() -> None:
    known = rows(100)
    changes = applied(known, *call("a", 90), grant(30), *call("b", 19), *call("c", 1))
    assert told(changes) == [(50, 100, 10), (80, 100, 10), (50, 40, 20)]
    assert known.accounts[1].full_balance == 40


def test_credit_that_is_taken_back_crosses_thresholds() -> None:
    changes = applied(rows(), grant(-60, "back"))
    assert told(changes) == [(50, 100, 40)]
    assert changes.events[0].event_id == "credit-50-1-back"
    assert changes.events[0].hold_id is None


def test_credit_that_was_added_without_events_is_part_of_the_whole() -> None:
    known = rows(balance=1000, full=100)
    assert told(applied(known, *call("a", 500))) == [(50, 1000, 500)]
    known = rows()
    decide(known, [grant(900)], NOW)
    assert known.accounts[1].full_balance == 1000


@given(st.lists(st.integers(1, 2**62), min_size=1, max_size=20), st.integers(0, 2**62))
def test_between_two_additions_each_threshold_is_crossed_at_most_once(
    charges: list[int], extra: int
) -> None:
    whole = sum(charges) + extra
    seen: list[int] = []
    left = whole
    for charge in charges:
        seen += crossed(whole, left, left - charge, USUAL)
        left -= charge
    assert seen == [percent for percent in USUAL if (whole - left) * 100 >= whole * percent]


def with_budgets(limit: int) -> Rows:
    known = rows(10**6, 10**6)
    known.accounts[1].budgets = budgets.put(None, Window.TOTAL, 1000, "UTC", NOW)
    known.keys[1].budgets = budgets.put(None, Window.DAY, limit, "UTC", NOW)
    return known


def of_budgets(changes: Changes) -> list[tuple[object, ...]]:
    return [
        (event.window, event.key_id, event.percent, event.whole, event.remaining)
        for event in changes.events
        if event.kind is EventKind.BUDGET_THRESHOLD
    ]


def test_each_budget_reports_its_thresholds() -> None:
    known = with_budgets(100)
    assert of_budgets(applied(known, *call("a", 49))) == []
    changes = applied(known, *call("b", 31))
    assert of_budgets(changes) == [("day", 1, 50, 100, 20), ("day", 1, 80, 100, 20)]
    assert [event.event_id for event in changes.events if event.percent] == [
        "budget-50-day-key-1-b",
        "budget-80-day-key-1-b",
    ]
    assert of_budgets(applied(known, *call("c", 20))) == [("day", 1, 100, 100, 0)]
    assert of_budgets(applied(with_budgets(10**6), *call("a", 500))) == [
        ("total", None, 50, 1000, 500)
    ]


def test_a_new_window_reports_its_thresholds_again() -> None:
    known = with_budgets(100)
    assert len(of_budgets(applied(known, *call("a", 60)))) == 1
    later = NOW + 86_400 * 10**9
    _, changes = decide(known, call("b", 60), later, USUAL)
    assert of_budgets(changes) == [("day", 1, 50, 100, 40)]


def test_a_charge_that_counts_in_no_current_window_crosses_nothing() -> None:
    known = with_budgets(100)
    place, settle = call("a", 100)
    decide(known, [place], NOW, USUAL)
    later = NOW + 86_400 * 10**9
    decide(known, call("b", 60), later, USUAL)
    _, changes = decide(known, [settle], later, USUAL)
    assert of_budgets(changes) == []


def test_nobody_is_told_about_a_window_that_has_passed() -> None:
    known = with_budgets(100)
    place, settle = call("a", 100)
    decide(known, [place], NOW, USUAL)
    _, changes = decide(known, [settle], NOW + 86_400 * 10**9, USUAL)
    assert of_budgets(changes) == []
    assert known.keys[1].budgets is not None
    assert known.keys[1].budgets.of[0].spent == 100

"""Concurrent processes on one account: together they get exactly its limits and its credit."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.accounts.budget_rows import BudgetChange
from service.accounts.directory import Directory
from service.ledger.budgets import Window
from service.ledger.rows import Place, Placed, Refusal, Refused
from service.ledger.store import Store
from tests.faults.store_workers import Crew, cross, place_and_settle, place_many
from tests.faults.stores import Team, assert_sound, entries, migrated

__all__ = ["migrated"]

PROCESSES = 8
REQUESTS = 125
MINUTE = 60 * 10**9


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with Crew(PROCESSES) as crew:
        yield crew


def _placed(crew: Crew, url: str, team: Team, clock: int | None = None) -> list[str]:
    return [id_ for ids in crew.each(place_many, url, team, clock, REQUESTS) for id_ in ids]


def test_credit_for_100_of_1000_requests_admits_exactly_100(
    crew: Crew, database: str, migrated: Store
) -> None:
    team = Team.create(migrated, credit=100 * 10)
    ids = _placed(crew, database, team)
    assert len(set(ids)) == 100
    assert team.balance(migrated) == (1000, 1000)
    assert_sound(migrated)
    migrated.apply([team.settle(id_) for id_ in ids])
    assert team.balance(migrated) == (0, 0)
    assert sorted(entries(migrated)) == sorted((id_, 10) for id_ in ids)
    assert_sound(migrated)
    # No credit is left, and none is held.
    refused = migrated.apply([team.place("late")])[0]
    assert isinstance(refused, Refused)
    assert refused.refusal is Refusal.CREDIT


@pytest.mark.parametrize("limit", ["requests", "tokens"])
def test_limits_per_minute_are_exact_across_processes(
    crew: Crew, database: str, migrated: Store, limit: str
) -> None:
    limits: dict[str, Any] = (
        {"requests_per_minute": 100} if limit == "requests" else {"tokens_per_minute": 100 * 10}
    )
    team = Team.create(migrated, credit=10**9, **limits)
    began = time.monotonic()
    # On SQLite, the test's clock stands still; on PostgreSQL, the server's clock runs.
    is_frozen = migrated.engine.dialect.name == "sqlite"
    start = time.time_ns()
    ids = _placed(crew, database, team, start if is_frozen else None)
    refilled = 0 if is_frozen else int((time.monotonic() - began) * 100 / 60) + 1
    assert 100 <= len(set(ids)) <= 100 + refilled
    assert_sound(migrated)
    if is_frozen:
        # Half a minute later, exactly half a bucket is available.
        half = _placed(crew, database, team, start + MINUTE // 2)
        assert len(half) == 50


def test_concurrent_calls_are_exact_across_processes(
    crew: Crew, database: str, migrated: Store
) -> None:
    team = Team.create(migrated, credit=10**9, concurrency=100)
    ids = _placed(crew, database, team)
    assert len(set(ids)) == 100
    assert_sound(migrated)
    # Each hold that ends makes room for another.
    migrated.apply([team.settle(id_) for id_ in ids[:30]])
    assert len(_placed(crew, database, team)) == 30
    assert_sound(migrated)


@pytest.mark.parametrize("scope", ["key", "account", "group"])
def test_a_budget_is_exact_across_processes(
    crew: Crew, database: str, migrated: Store, scope: str
) -> None:
    team = Team.create(migrated, credit=10**9, group=scope == "group")
    rows = Directory(migrated).budgets
    of = "acme", "ci"
    if scope == "group":
        # The budget of the account that pays: its groups share it.
        rows.set(
            "payer", changes=[BudgetChange(Window.DAY, 10**6), BudgetChange(Window.TOTAL, 1000)]
        )
    else:
        rows.set(*of[: 2 if scope == "key" else 1], changes=[BudgetChange(Window.TOTAL, 1000)])
    ids = _placed(crew, database, team)
    assert len(set(ids)) == 100
    assert_sound(migrated)
    refused = migrated.apply([team.place("late")])[0]
    assert isinstance(refused, Refused)
    assert refused.refusal is Refusal.BUDGET_HELD
    # Charges of less than their holds make room for as much as they leave: 30 holds of 10 charge 5.
    migrated.apply([team.settle(id_, charge=5) for id_ in ids[:30]])
    assert len(_placed(crew, database, team)) == 15
    migrated.apply([team.settle(id_) for id_ in ids[30:]])
    assert_sound(migrated)


def test_processes_that_place_and_settle_never_exceed_a_budget(
    crew: Crew, database: str, migrated: Store
) -> None:
    team = Team.create(migrated, credit=10**9)
    Directory(migrated).budgets.set("acme", "ci", changes=[BudgetChange(Window.TOTAL, 1000)])
    charged = sum(crew.each(place_and_settle, database, team, REQUESTS))
    (budget,) = Directory(migrated).budgets.set("acme", "ci")
    assert (budget.spent, budget.held) == (charged, 0)
    # No call fits any more: each holds ten and costs seven.
    assert 990 < budget.spent <= 1000
    assert sum(amount for _, amount in entries(migrated)) == charged
    assert_sound(migrated)


def test_batches_over_many_accounts_never_wait_in_a_circle(
    crew: Crew, database: str, migrated: Store
) -> None:
    teams = [Team.create(migrated, credit=10**9, name=f"team {number}") for number in range(24)]
    charged = crew.each(cross, database, teams, 25)
    for team in teams:
        expected = 10**9 - sum(one[team.account_id] for one in charged)
        assert team.balance(migrated) == (expected, 0)
    assert_sound(migrated)


def test_a_place_that_is_sent_again_is_answered_the_same(migrated: Store) -> None:
    team = Team.create(migrated, credit=10, concurrency=1)
    assert isinstance(migrated.apply([team.place("a")])[0], Placed)
    # Neither the credit nor the concurrency suffices for a second hold now.
    assert isinstance(migrated.apply([team.place("a")])[0], Placed)
    other: list[Place] = [team.place("b"), team.place("a")]
    first, second = migrated.apply(other)
    assert isinstance(first, Refused)
    assert isinstance(second, Placed)
    assert team.balance(migrated) == (10, 10)
    assert_sound(migrated)

"""A quote equals the decision of a hold at the same time, and changes nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import structs, to_builtins

from service.accounts.directory import Directory
from service.ledger import budgets
from service.ledger.budgets import Window
from service.ledger.migrations import migrate
from service.ledger.quoting import quote
from service.ledger.rows import Grant, Place, Placed, Refusal, Refused
from service.ledger.schema import accounts, api_keys, holds, ledger
from service.ledger.store import Store

NOW = 1_790_000_000 * 10**9
CREDIT = 1000


Case = tuple[dict[str, Any], int, int, list[tuple[int, int]], Refusal | None]
"""The limits of a key, a hold (amount, tokens), the holds before it, and why it is rejected."""


class House:
    """A store with an account of 1,000 nano-credits."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.directory = Directory(store)
        self.account = self.directory.create_account("acme").id
        store.apply([Grant(account_id=self.account, amount=CREDIT, idempotency_id="g")])
        self._holds = iter(range(1000))

    def key(self, **limits: Any) -> int:
        row, _ = self.directory.create_key("acme", f"key-{next(self._holds)}", **limits)
        return int(row.id)

    def place(self, key: int, amount: int, tokens: int = 1, model: str = "m") -> Place:
        row = next(row for row in self.directory.keys("acme") if row.id == key)
        return Place(
            hold_id=f"hold-{next(self._holds)}",
            account_id=self.account,
            key_id=key,
            amount=amount,
            tokens=tokens,
            model=model,
            owner="tests",
            lease=60 * 10**9,
            key_created_at=row.created_at,
        )

    def rows(self) -> object:
        with self.store.reading() as connection:
            tables = (accounts, api_keys, holds, ledger)
            return [connection.execute(sa.select(table)).all() for table in tables]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    store = Store(f"sqlite:///{tmp_path}/store.sqlite3", clock=lambda: NOW)
    migrate(store)
    yield House(store)
    store.close()


@pytest.mark.parametrize(
    "case",
    [
        ({}, CREDIT, 1, [], None),
        ({}, CREDIT + 1, 1, [], Refusal.CREDIT),
        ({}, CREDIT - 99, 1, [(100, 1)], Refusal.HELD),
        ({}, CREDIT - 100, 1, [(100, 1)], None),
        ({"requests_per_minute": 2}, 1, 1, [(1, 1)], None),
        ({"requests_per_minute": 2}, 1, 1, [(1, 1), (1, 1)], Refusal.REQUESTS),
        ({"tokens_per_minute": 60}, 1, 60, [], None),
        ({"tokens_per_minute": 60}, 1, 61, [], Refusal.TOKENS),
        ({"tokens_per_minute": 60}, 1, 31, [(1, 30)], Refusal.TOKENS),
        ({"concurrency": 1}, 1, 1, [(1, 1)], Refusal.CONCURRENCY),
        ({"models": ["other"]}, 1, 1, [], Refusal.MODEL),
        ({"models": ["m", "other"]}, 1, 1, [], None),
    ],
)
def test_a_quote_is_the_decision_and_changes_nothing(house: House, case: Case) -> None:
    limits, amount, tokens, taken, refusal = case
    key = house.key(**limits)
    for each in taken:
        house.store.apply([house.place(key, *each)])
    place, before = house.place(key, amount, tokens), house.rows()

    for _ in range(3):  # also after other quotes
        quoted = quote(house.store, place, lambda _: place, 1)

    assert house.rows() == before
    [outcome] = house.store.apply([place])
    assert quoted.outcome == outcome
    assert (outcome.refusal if isinstance(outcome, Refused) else None) == refusal
    assert quoted.largest == (refusal is None)
    assert quoted.available == CREDIT - sum(held for held, _ in taken)
    assert quoted.now == NOW


@pytest.mark.parametrize(
    ("limits", "taken", "largest"),
    [
        ({}, [], 100),
        ({}, [(400, 1)], 60),
        ({}, [(991, 1)], 0),
        ({"tokens_per_minute": 35}, [], 7),
        ({"tokens_per_minute": 35}, [(1, 20)], 3),
        ({"requests_per_minute": 1}, [(1, 1)], 0),
    ],
)
def test_the_largest_hold_that_fits_and_no_larger_one(
    house: House, limits: dict[str, Any], taken: list[tuple[int, int]], largest: int
) -> None:
    key = house.key(**limits)
    for each in taken:
        house.store.apply([house.place(key, *each)])
    template = house.place(key, 0)

    def sized(size: int) -> Place:
        return structs.replace(template, amount=10 * size, tokens=5 * size)

    quoted = quote(house.store, sized(1), sized, 10_000)

    assert quoted.largest == largest
    if largest:
        assert isinstance(house.store.apply([sized(largest + 1)])[0], Refused)
        assert isinstance(house.store.apply([sized(largest)])[0], Placed)


def test_budgets_and_accounts_above_are_those_of_the_decision(house: House) -> None:
    child = house.directory.create_account("team").id
    row, _ = house.directory.create_key("team", "ci")
    own = budgets.put(None, Window.DAY, 60, "UTC", NOW - 2 * 86_400 * 10**9)
    with house.store.writing() as connection:
        connection.execute(
            sa.update(accounts).where(accounts.c.id == child).values(parent_id=house.account)
        )
        connection.execute(sa.update(api_keys).values(budgets=to_builtins(own)))
    template = Place(
        hold_id="h",
        account_id=child,
        key_id=row.id,
        amount=0,
        tokens=0,
        model="m",
        owner="tests",
        lease=1,
        key_created_at=row.created_at,
        parents=(house.account,),
    )

    def sized(size: int) -> Place:
        return structs.replace(template, amount=10 * size)

    before = house.rows()
    quoted = quote(house.store, sized(7), sized, 10_000)

    assert house.rows() == before
    assert isinstance(quoted.outcome, Refused)
    assert quoted.outcome.refusal is Refusal.BUDGET
    assert (quoted.largest, quoted.available) == (6, CREDIT)
    assert house.store.apply([sized(7)]) == [quoted.outcome]
    assert isinstance(house.store.apply([sized(6)])[0], Placed)


@pytest.mark.parametrize("limit", ["revoked", "suspended", "unknown"])
def test_an_ended_key_is_refused(house: House, limit: str) -> None:
    key = house.key()
    place = house.place(key, 1)
    name = house.directory.keys("acme")[0].name
    if limit == "revoked":
        house.directory.revoke_key("acme", name)
    elif limit == "suspended":
        house.directory.lifecycle.suspend_key("acme", name)
    else:
        place = structs.replace(place, key_id=key + 1)

    quoted = quote(house.store, place, lambda _: place, 10)

    assert isinstance(quoted.outcome, Refused)
    expected = Refusal.SUSPENDED if limit == "suspended" else Refusal.KEY
    assert (quoted.outcome.refusal, quoted.largest) == (expected, 0)


async def test_a_quote_waits_for_no_writer(house: House) -> None:
    place = house.place(house.key(), 1)
    with house.store.writing():
        quoted = await asyncio.to_thread(quote, house.store, place, lambda _: place, 1)

    assert isinstance(quoted.outcome, Placed)

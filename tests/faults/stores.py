"""Stores for the tests of this folder: with tables, an account with a key, and invariants.

migrated       a store on each engine, see `database`
Team.create    an account with credit and a key
assert_sound   balances match their ledgers; held amounts and running calls match the open holds
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from service.accounts.directory import Directory
from service.accounts.verification import differences
from service.ledger.migrations import migrate
from service.ledger.rows import Expire, Grant, HoldState, Place, Release, Settle
from service.ledger.schema import accounts, api_keys, holds, ledger
from service.ledger.store import Store

SECOND = 10**9


@pytest.fixture
def migrated(database: str) -> Iterator[Store]:
    """A store with its tables, once for each engine."""
    store = Store(database)
    migrate(store)
    yield store
    store.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """An account and its only key."""

    account_id: int
    key_id: int
    created_at: int
    """The time at which the key was created."""
    parents: tuple[int, ...] = ()
    """The accounts above it."""

    @classmethod
    def create(
        cls, store: Store, *, credit: int, name: str = "acme", group: bool = False, **limits: Any
    ) -> "Team":
        directory = Directory(store)
        above = (directory.create_account("payer").id,) if group else ()
        account = directory.create_account(name, parent="payer" if group else "")
        key, _ = directory.create_key(name, "ci", **limits)
        team = cls(account_id=account.id, key_id=key.id, created_at=key.created_at, parents=above)
        store.apply([team.grant(credit, "first")])
        return team

    def grant(self, amount: int, idempotency_id: str) -> Grant:
        payer = (self.account_id, *self.parents)[-1]
        return Grant(account_id=payer, amount=amount, idempotency_id=idempotency_id)

    def place(self, hold_id: str, amount: int = 10, tokens: int = 1, lease: int = 60) -> Place:
        return Place(
            hold_id=hold_id,
            account_id=self.account_id,
            key_id=self.key_id,
            amount=amount,
            tokens=tokens,
            model="m",
            owner="test",
            lease=lease * SECOND,
            key_created_at=self.created_at,
            parents=self.parents,
        )

    def settle(self, hold_id: str, charge: int = 10, place: Place | None = None) -> Settle:
        return Settle(
            hold_id=hold_id,
            account_id=self.account_id,
            key_id=self.key_id,
            charge=charge,
            prompt_tokens=1,
            completion_tokens=0,
            place=place or self.place(hold_id),
            parents=self.parents,
        )

    def release(self, hold_id: str) -> Release:
        return Release(hold_id=hold_id, account_id=self.account_id, key_id=self.key_id)

    def expire(self, hold_id: str) -> Expire:
        return Expire(hold_id=hold_id, account_id=self.account_id, key_id=self.key_id)

    def balance(self, store: Store) -> tuple[int, int]:
        """Return the balance and its held part."""
        with store.engine.connect() as connection:
            row = connection.execute(
                sa.select(accounts.c.balance, accounts.c.held).where(
                    accounts.c.id == self.account_id
                )
            ).one()
        return row.balance, row.held


def entries(store: Store) -> list[tuple[str, int]]:
    """Return the holds that were settled and their charges, in order."""
    with store.engine.connect() as connection:
        found = connection.execute(
            sa.select(ledger.c.hold_id, ledger.c.amount)
            .where(ledger.c.hold_id.is_not(None))
            .order_by(ledger.c.id)
        )
        return [(row.hold_id, -row.amount) for row in found]


def assert_sound(store: Store) -> None:
    """Assert the invariants of every account and key."""
    assert list(differences(store)) == []
    # In one snapshot: PostgreSQL can still commit what a killed process sent.
    with store.reading_at_once() as connection:
        running = {
            row.key_id: row.number
            for row in connection.execute(
                sa.select(holds.c.key_id, sa.func.count().label("number"))
                .where(holds.c.state == HoldState.OPEN)
                .group_by(holds.c.key_id)
            )
        }
        for row in connection.execute(sa.select(api_keys.c.id, api_keys.c.running)):
            assert row.running == running.get(row.id, 0)
        settled = connection.execute(
            sa.select(sa.func.count()).where(holds.c.state == HoldState.SETTLED)
        ).scalar_one()
        written = connection.execute(
            sa.select(sa.func.count(sa.distinct(ledger.c.hold_id)))
        ).scalar_one()
        assert settled == written

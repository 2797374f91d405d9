"""The lives of accounts and keys on a SQLite file, up to the decisions on their calls."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.accounts import keys
from service.accounts.directory import Directory
from service.accounts.keys import Caller, FormerKey, SuspendedKey
from service.errors import ApiKeyNotFound, InvalidRequest
from service.ledger.migrations import migrate
from service.ledger.rows import Grant, Outcome, Place, Placed, Refusal, Refused
from service.ledger.store import Store

DAY = 86_400 * 10**9


@dataclass
class House:
    """An account "acme" with credit and a key "ci", and the time."""

    store: Store
    directory: Directory
    secret: str
    now: int = 1000 * DAY
    holds: int = 0

    def caller(self, secret: str) -> Caller:
        """Return the caller of a valid secret."""
        caller = self.directory.callers.find(keys.digest(secret))
        assert caller is not None
        return caller

    def call(self, caller: Caller) -> Outcome:
        """Place a hold for a caller, who can have been looked up before a change."""
        self.holds += 1
        place = Place(
            hold_id=f"hold-{self.holds}",
            account_id=caller.account_id,
            key_id=caller.key_id,
            amount=1,
            tokens=1,
            model="m",
            owner="tests",
            lease=DAY,
            key_rotated_at=caller.key_rotated_at,
        )
        (outcome,) = self.store.apply([place])
        return outcome

    def refusal(self, caller: Caller) -> Refusal | None:
        """Return why a call is refused; None if it is not."""
        outcome = self.call(caller)
        if isinstance(outcome, Placed):
            return None
        assert isinstance(outcome, Refused)
        return outcome.refusal


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    store = Store(f"sqlite:///{tmp_path}/accounts.db", clock=lambda: made.now)
    made = House(store=store, directory=Directory(store), secret="")
    migrate(store)
    account = made.directory.create_account("acme").id
    made.secret = made.directory.create_key("acme", "ci")[1]
    store.apply([Grant(account_id=account, amount=1000, idempotency_id="first")])
    yield made
    store.close()


def test_a_suspended_account_is_refused_until_it_is_resumed(house: House) -> None:
    caller = house.caller(house.secret)
    since = house.directory.lifecycle.suspend_account("acme").suspended_at
    assert since == house.now
    house.now += 1

    assert house.directory.lifecycle.suspend_account("acme").suspended_at == since
    assert house.refusal(caller) is Refusal.SUSPENDED
    assert house.directory.callers.look_up(keys.digest(house.secret)) == SuspendedKey(
        account_name="acme", key_name="ci", of_account=True
    )
    assert house.directory.lifecycle.resume_account("acme").suspended_at is None
    assert house.refusal(caller) is None


def test_a_suspended_key_is_refused_and_its_sisters_are_not(house: House) -> None:
    other = house.directory.create_key("acme", "other")[1]
    caller = house.caller(house.secret)
    house.directory.lifecycle.suspend_key("acme", "ci")
    house.now += 1
    assert house.directory.lifecycle.suspend_key("acme", "ci").suspended_at == house.now - 1

    assert house.refusal(caller) is Refusal.SUSPENDED
    assert house.refusal(house.caller(other)) is None
    assert house.directory.callers.look_up(keys.digest(house.secret)) == SuspendedKey(
        account_name="acme", key_name="ci", of_account=False
    )
    assert house.directory.lifecycle.resume_key("acme", "ci").suspended_at is None
    assert house.refusal(house.caller(house.secret)) is None


def test_the_former_secret_is_valid_during_its_grace(house: House) -> None:
    before = house.caller(house.secret)
    row, secret = house.directory.lifecycle.rotate_key("acme", "ci", grace=DAY)
    assert row.former_until == house.now + DAY
    assert row.secret_prefix == secret[:14]

    assert house.refusal(before) is None
    assert house.refusal(house.caller(secret)) is None
    assert house.refusal(house.caller(house.secret)) is None
    former = house.caller(house.secret)
    house.now += DAY
    assert house.refusal(before) is Refusal.KEY
    assert house.refusal(former) is Refusal.KEY
    assert house.directory.callers.look_up(keys.digest(house.secret)) == FormerKey(
        key_name="ci", was_revoked=False, ended_at=house.now
    )
    assert house.refusal(house.caller(secret)) is None


def test_a_leaked_secret_is_invalid_at_once(house: House) -> None:
    cached = house.caller(house.secret)
    secret = house.directory.lifecycle.rotate_key("acme", "ci", grace=0)[1]

    assert house.refusal(cached) is Refusal.KEY
    assert house.directory.callers.find(keys.digest(house.secret)) is None
    assert house.refusal(house.caller(secret)) is None


def test_only_one_former_secret_is_kept(house: House) -> None:
    house.directory.lifecycle.rotate_key("acme", "ci", grace=DAY)
    house.now += 1
    house.directory.lifecycle.rotate_key("acme", "ci", grace=DAY)

    assert house.directory.callers.look_up(keys.digest(house.secret)) is None


def test_a_revoked_key_gets_no_new_secret(house: House) -> None:
    house.directory.revoke_key("acme", "ci")

    with pytest.raises(InvalidRequest, match="revoked"):
        house.directory.lifecycle.rotate_key("acme", "ci", grace=0)


def test_an_account_is_deleted_without_credit(house: House) -> None:
    caller = house.caller(house.secret)
    with pytest.raises(InvalidRequest, match="has credit"):
        house.directory.lifecycle.delete_account("acme")
    house.directory.deduct_credit("acme", 1000, "all")
    deleted = house.directory.lifecycle.delete_account("acme")
    house.now += 1

    assert deleted.deleted_at == house.now - 1
    assert house.directory.lifecycle.delete_account("acme").deleted_at == house.now - 1
    assert house.directory.accounts() == []
    assert house.refusal(caller) is Refusal.KEY
    assert house.directory.keys("acme")[0].revoked_at == house.now - 1
    assert len(house.directory.reports.ledger("acme")) == 2
    with pytest.raises(InvalidRequest, match="deleted"):
        house.directory.create_key("acme", "new")
    with pytest.raises(InvalidRequest, match="deleted"):
        house.directory.add_credit("acme", 1, "new")


def test_a_key_is_found_by_its_secret_or_the_beginning(house: House) -> None:
    find = house.directory.lifecycle.find_key
    assert find(house.secret).name == find(house.secret[:14]).name == "ci"
    renewed = house.directory.lifecycle.rotate_key("acme", "ci", grace=0)[1]
    assert find(renewed[:14]).name == find(house.secret).name == "ci"
    given = house.directory.create_key("acme", "given", key="sk-of-an-older-system")[1]
    assert find(given).name == "given"
    for unknown in (keys.make(), "sk-live-unknow", "%" * 14, "sk-live-______"):
        with pytest.raises(ApiKeyNotFound):
            find(unknown)


def test_the_last_use_is_that_of_the_last_admitted_call(house: House) -> None:
    assert house.directory.keys("acme")[0].used_at is None
    house.now += 5
    assert house.refusal(house.caller(house.secret)) is None
    house.now += 5
    house.directory.lifecycle.suspend_key("acme", "ci")

    assert house.directory.keys("acme")[0].used_at == house.now - 5

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.accounts.directory import Directory
from service.accounts.verification import differences
from service.ledger.claims import LAPSED_KEPT
from service.ledger.migrations import migrate
from service.ledger.rows import AnswerState, Claim, Forget, Grant, Place, Settle
from service.ledger.store import Store
from service.ledger.stored_answers import Answers, Seen

SECOND = 10**9
START = 10**18


class Shelf:
    """A store with a clock, an account and a key."""

    def __init__(self, directory: Path) -> None:
        self.now = START
        self.store = Store(f"sqlite:///{directory}/db", clock=lambda: self.now)
        migrate(self.store)
        made = Directory(self.store)
        self.account = made.create_account("acme").id
        self.key = made.create_key("acme", "ci")[0].id
        self.store.apply([Grant(account_id=self.account, amount=1000, idempotency_id="g")])
        self.answers = Answers(self.store)

    def place(self, name: str, runner: str = "one") -> Place:
        claim = Claim(
            id=name, body="b", runner=runner, lease=20 * SECOND, keep=60 * SECOND, most=1000
        )
        return Place(
            hold_id=f"h-{name}",
            account_id=self.account,
            key_id=self.key,
            amount=10,
            tokens=1,
            model="m",
            owner="o",
            lease=10 * SECOND,
            claim=claim,
        )

    def finish(self, name: str, answer: bytes) -> None:
        place = self.place(name)
        settle = Settle(
            hold_id=place.hold_id,
            account_id=self.account,
            key_id=self.key,
            charge=1,
            prompt_tokens=1,
            completion_tokens=1,
            place=place,
            answer=answer,
        )
        self.store.apply([settle])


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.store.close()


def test_an_answer_is_seen_from_its_claim_to_its_end(shelf: Shelf) -> None:
    assert shelf.answers.seen("a") is None
    shelf.store.apply([shelf.place("a")])
    assert shelf.answers.seen("a") == Seen(hold_id="h-a", state=AnswerState.RUNNING, is_over=False)
    assert shelf.answers.content("a", "h-a") is None

    shelf.finish("a", b"\x00answer")

    assert shelf.answers.seen("a") == Seen(hold_id="h-a", state=AnswerState.KEPT, is_over=False)
    assert shelf.answers.content("a", "h-a") == b"\x00answer"
    assert shelf.answers.content("a", "h-b") is None
    shelf.now += 60 * SECOND
    assert shelf.answers.seen("a") == Seen(hold_id="h-a", state=AnswerState.KEPT, is_over=True)


def test_only_the_running_claims_of_a_process_are_renewed(shelf: Shelf) -> None:
    shelf.store.apply([shelf.place("a"), shelf.place("b", "two"), shelf.place("c")])
    shelf.finish("c", b"x")
    shelf.now += 19 * SECOND

    shelf.answers.renew("one", 20 * SECOND)

    shelf.now += 2 * SECOND
    seen = {name: shelf.answers.seen(name) for name in "abc"}
    assert {name: each and each.is_over for name, each in seen.items()} == {
        "a": False,
        "b": True,
        "c": False,
    }
    shelf.now = START + 60 * SECOND
    assert shelf.answers.expired() == [Forget(answer_id="c", account_id=shelf.account)]


def test_expired_answers_are_listed_and_deleted_with_their_size(shelf: Shelf) -> None:
    shelf.store.apply([shelf.place("a"), shelf.place("b")])
    shelf.finish("a", b"answer")
    assert shelf.answers.expired() == []

    shelf.now += 60 * SECOND
    expired = shelf.answers.expired()
    assert expired == [Forget(answer_id="a", account_id=shelf.account)]
    shelf.store.apply(expired)

    assert shelf.answers.seen("a") is None
    # The claim that lapsed stays for a while.
    shelf.now += LAPSED_KEPT
    assert [forget.answer_id for forget in shelf.answers.expired()] == ["b"]
    assert list(differences(shelf.store)) == []


def test_a_size_that_differs_is_found(shelf: Shelf) -> None:
    shelf.store.apply([shelf.place("a")])
    shelf.finish("a", b"answer")
    with shelf.store.writing() as connection:
        connection.exec_driver_sql("UPDATE accounts SET answer_bytes = 7")

    [found] = differences(shelf.store)

    assert (found.of, found.stored, found.recomputed) == ("answers", 7, 6)

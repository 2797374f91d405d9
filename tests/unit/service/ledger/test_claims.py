"""Who has an idempotency key, and that a caller never pays twice for one."""

from typing import Any

import pytest

from service.ledger.claims import LAPSED_KEPT
from service.ledger.decisions import decide
from service.ledger.rows import (
    Account,
    AnswerState,
    Claim,
    Claimed,
    Ended,
    Forget,
    Forgotten,
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
LEASE, KEEP, MOST = 20, 600, 100


def rows(**key: Any) -> Rows:
    return Rows(
        accounts={1: Account(id=1, balance=1000, held=0)},
        keys={1: Key(id=1, account_id=1, **key)},
    )


def place(hold: str, body: str = "b", runner: str = "one") -> Place:
    claim = Claim(id="c", body=body, runner=runner, lease=LEASE, keep=KEEP, most=MOST)
    return Place(
        hold_id=hold,
        account_id=1,
        key_id=1,
        amount=100,
        tokens=10,
        model="m",
        owner="o",
        lease=10**6,
        claim=claim,
    )


def settle(hold: str, answer: bytes | None = b"a" * 40, charge: int = 60) -> Settle:
    return Settle(
        hold_id=hold,
        account_id=1,
        key_id=1,
        charge=charge,
        prompt_tokens=1,
        completion_tokens=1,
        place=place(hold),
        answer=answer,
    )


def release(hold: str) -> Release:
    return Release(hold_id=hold, account_id=1, key_id=1, claim="c")


def do(state: Rows, operation: Operation, now: int = NOW) -> Outcome:
    [outcome], _ = decide(state, [operation], now)
    return outcome


FORGET = Forget(answer_id="c", account_id=1)


def test_the_first_call_has_the_key_and_others_learn_of_it() -> None:
    state = rows(requests_per_minute=60)

    assert isinstance(do(state, place("h1")), Placed)
    tat = state.keys[1].requests_tat
    other = do(state, place("h2", body="other"))

    assert isinstance(other, Claimed)
    assert (other.body, other.hold_id, other.state) == ("b", "h1", AnswerState.RUNNING)
    # Nothing was taken or held.
    assert other.requests is not None
    assert state.keys[1].requests_tat == tat
    assert state.accounts[1].held == 100
    assert "h2" not in state.holds


def test_two_calls_in_one_batch_place_one_hold() -> None:
    state = rows()

    outcomes, changes = decide(state, [place("h1"), place("h2")], NOW)

    assert [type(outcome) for outcome in outcomes] == [Placed, Claimed]
    assert changes.placed == ["h1"]


def test_a_charge_stores_its_answer() -> None:
    state = rows()
    do(state, place("h1"))

    do(state, settle("h1", charge=500), NOW + 5)

    found = do(state, place("h2"), NOW + 5 + KEEP - 1)
    assert isinstance(found, Claimed)
    # The hold is the most that is charged.
    assert (found.state, found.hold_id, found.charged) == (AnswerState.KEPT, "h1", 100)
    assert state.answers["c"].content == b"a" * 40
    assert state.accounts[1].answer_bytes == 40


def test_an_answer_expires_and_the_key_is_free() -> None:
    state = rows()
    do(state, place("h1"))
    do(state, settle("h1"))

    assert isinstance(do(state, place("h2"), NOW + KEEP), Placed)

    assert state.answers["c"].hold_id == "h2"
    assert state.accounts[1].answer_bytes == 0


@pytest.mark.parametrize("answer", [None, b"a" * 101])
def test_a_charge_without_an_answer_to_keep_is_not_repeated(answer: bytes | None) -> None:
    state = rows()
    do(state, place("h1"))

    do(state, settle("h1", answer))

    found = do(state, place("h2"))
    assert isinstance(found, Claimed)
    assert found.state is AnswerState.NOT_KEPT
    assert state.accounts[1].answer_bytes == 0


def test_an_account_keeps_answers_up_to_its_limit() -> None:
    state = rows()
    state.accounts[1].answer_bytes = MOST - 40
    do(state, place("h1"))

    do(state, settle("h1"))

    assert state.answers["c"].state is AnswerState.KEPT
    assert state.accounts[1].answer_bytes == MOST


def test_a_call_that_costs_nothing_frees_the_key() -> None:
    state = rows()
    do(state, place("h1"))

    do(state, release("h1"))

    assert isinstance(do(state, place("h2")), Placed)


def test_a_release_that_comes_again_does_not_free_the_key_of_another_call() -> None:
    state = rows()
    do(state, place("h1"))
    do(state, release("h1"))
    do(state, place("h2"))

    do(state, release("h1"))

    assert state.answers["c"].hold_id == "h2"


def test_a_release_does_not_free_the_key_of_a_charge() -> None:
    state = rows()
    do(state, place("h1"))
    do(state, settle("h1"))

    do(state, release("h1"))

    assert state.answers["c"].state is AnswerState.KEPT


def test_a_lapsed_claim_is_taken_over_and_only_the_later_call_is_charged() -> None:
    state = rows()
    do(state, place("h1"))

    assert isinstance(do(state, place("h2", runner="two"), NOW + LEASE), Placed)
    late = do(state, settle("h1"), NOW + LEASE + 1)
    done = do(state, settle("h2"), NOW + LEASE + 2)

    assert late == Ended(state=HoldState.RELEASED)
    assert done == Ended(state=HoldState.SETTLED, charged=60)
    assert state.accounts[1].balance == 940
    assert state.accounts[1].held == 0
    assert state.answers["c"].hold_id == "h2"


def test_a_lapsed_claim_that_nobody_took_over_is_charged() -> None:
    state = rows()
    do(state, place("h1"))

    assert do(state, settle("h1"), NOW + 10 * LEASE) == Ended(state=HoldState.SETTLED, charged=60)

    assert state.answers["c"].state is AnswerState.KEPT


def test_a_charge_whose_hold_and_claim_the_store_lost_stands_with_its_answer() -> None:
    state = rows()

    assert do(state, settle("h1")) == Ended(state=HoldState.SETTLED, charged=60)

    assert state.answers["c"].state is AnswerState.KEPT


def test_a_placed_hold_that_is_sent_again_keeps_its_claim() -> None:
    state = rows()
    do(state, place("h1"))

    assert isinstance(do(state, place("h1")), Placed)


def test_a_revoked_key_gets_no_answer() -> None:
    state = rows()
    do(state, place("h1"))
    do(state, settle("h1"))
    state.keys[1].revoked_at = NOW

    assert do(state, place("h2")) == Refused(refusal=Refusal.KEY)


def test_an_answer_is_found_without_credit() -> None:
    state = rows()
    do(state, place("h1"))
    do(state, settle("h1"))
    state.accounts[1].balance = 0

    assert isinstance(do(state, place("h2")), Claimed)


@pytest.mark.parametrize(("later", "deleted"), [(KEEP - 1, False), (KEEP, True)])
def test_an_answer_is_deleted_once_it_has_expired(later: int, deleted: bool) -> None:
    state = rows()
    do(state, place("h1"))
    do(state, settle("h1"))

    outcome = do(state, FORGET, NOW + later)

    assert outcome == Forgotten(deleted=deleted)
    assert ("c" in state.answers) is not deleted
    assert state.accounts[1].answer_bytes == (0 if deleted else 40)


@pytest.mark.parametrize(("later", "deleted"), [(LAPSED_KEPT - 1, False), (LAPSED_KEPT, True)])
def test_a_lapsed_claim_is_deleted_long_after(later: int, deleted: bool) -> None:
    state = rows()
    do(state, place("h1"))

    assert do(state, FORGET, NOW + LEASE + later) == Forgotten(deleted=deleted)


def test_nothing_is_deleted_twice() -> None:
    assert do(rows(), FORGET) == Forgotten(deleted=False)

"""Renewing claims and deleting answers, while the store is there and while it is away."""

from typing import Any

from service.idempotency.upkeep import Upkeep
from service.ledger.rows import AnswerState, Claim, Place, Settle
from service.ledger.stored_answers import FORGOTTEN_AT_ONCE, Answers
from tests.unit.service.books import Books

SECOND = 10**9
COUNT = FORGOTTEN_AT_ONCE + 3


async def place(books: Books, name: str, *, lease: int = 20) -> Place:
    caller = await books.caller()
    claim = Claim(
        id=name, body="b", runner="me", lease=lease * SECOND, keep=60 * SECOND, most=10**6
    )
    return Place(
        hold_id=f"h-{name}",
        account_id=caller.account_id,
        key_id=caller.key_id,
        amount=1,
        tokens=1,
        model="m",
        owner="o",
        lease=10**6,
        claim=claim,
    )


def upkeep(books: Books, *, running: int) -> Upkeep:
    return Upkeep(
        Answers(books.store), books.batches, runner="me", running=lambda: running, lease=20
    )


async def test_running_claims_are_renewed(books: Books) -> None:
    books.store.apply([await place(books, "a")])
    for _ in range(10):
        books.now += 5 * SECOND
        await upkeep(books, running=1).round()

    seen = Answers(books.store).seen("a")
    assert seen is not None
    assert (seen.state, seen.is_over) == (AnswerState.RUNNING, False)


async def test_without_runs_nothing_is_written(books: Books) -> None:
    books.store.apply([await place(books, "a")])
    books.now += 15 * SECOND
    await upkeep(books, running=0).round()
    books.now += 5 * SECOND

    seen = Answers(books.store).seen("a")
    assert seen is not None
    assert seen.is_over


async def test_all_expired_answers_are_deleted(books: Books) -> None:
    for number in range(COUNT):
        placed = await place(books, f"{number}")
        ids: dict[str, Any] = {
            "hold_id": placed.hold_id,
            "account_id": placed.account_id,
            "key_id": placed.key_id,
        }
        settled = Settle(
            **ids, charge=0, prompt_tokens=0, completion_tokens=0, place=placed, answer=b"x"
        )
        books.store.apply([placed, settled])
    books.now += 60 * SECOND

    await upkeep(books, running=0).round()

    assert Answers(books.store).expired() == []
    books.assert_at_rest()


async def test_a_store_that_is_away_is_left_to_the_housekeeping(books: Books) -> None:
    books.store.reading_fails = True
    await upkeep(books, running=1).round()

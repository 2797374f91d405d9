"""No sequence of operations lets a caller pay twice for one idempotency key.

    hypothesis -> place, settle, release, renew, forget, time -> decide            under test
                                          └─────► who has each key, what was paid for it

Processes pause, die and come back late, with settlements of runs that others took over. The tables
are the rows themselves: `tests/faults/test_idempotency.py` has the databases.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from service.ledger.claims import LAPSED_KEPT
from service.ledger.decisions import decide
from service.ledger.rows import (
    Account,
    AnswerState,
    Claim,
    Claimed,
    Ended,
    Forget,
    HoldState,
    Key,
    Operation,
    Outcome,
    Place,
    Placed,
    Release,
    Rows,
    Settle,
)
from tests.support.examples import examples

NOW: Final = 1_800_000_000 * 10**9
LEASE, KEEP, MOST = 20, 600, 300
CREDIT: Final = 10**9


@dataclass
class Paid:
    """What a caller has paid for an answer."""

    hold_id: str
    until: int


@dataclass
class Books:
    """The expected state."""

    runs: dict[str, str] = field(default_factory=dict)
    """The hold that has each claim."""
    paid: dict[str, Paid] = field(default_factory=dict)
    """The charge of each claim whose answer has not expired."""
    spent: int = 0
    charges: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The number of charges of each hold."""


class Claims(RuleBasedStateMachine):
    """Calls of several processes with few idempotency keys."""

    placed = Bundle("placed")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.count = 0
        self.books = Books()
        self.rows = Rows(
            accounts={1: Account(id=1, balance=CREDIT, held=0)}, keys={1: Key(id=1, account_id=1)}
        )

    def do(self, operation: Operation) -> Outcome:
        [outcome], _ = decide(self.rows, [operation], self.now)
        return outcome

    @rule(
        target=placed,
        key=st.sampled_from("ab"),
        body=st.sampled_from("xy"),
        runner=st.sampled_from(("one", "two")),
    )
    def place(self, key: str, body: str, runner: str) -> object:
        self.count += 1
        claim = Claim(id=key, body=body, runner=runner, lease=LEASE, keep=KEEP, most=MOST)
        place = Place(
            hold_id=f"h{self.count}",
            account_id=1,
            key_id=1,
            amount=100,
            tokens=1,
            model="m",
            owner=runner,
            lease=10**18,
            claim=claim,
        )
        answer = self.rows.answers.get(key)
        is_taken = answer is not None and answer.until > self.now
        outcome = self.do(place)
        if is_taken:
            assert isinstance(outcome, Claimed)
            assert answer is not None
            assert (outcome.body, outcome.hold_id) == (answer.body, answer.hold_id)
            return multiple()
        assert isinstance(outcome, Placed)
        # A run begins only if nobody has paid for the answer, or it has expired.
        paid = self.books.paid.pop(key, None)
        assert paid is None or paid.until <= self.now
        self.books.runs[key] = place.hold_id
        return place

    @rule(place=placed, size=st.sampled_from((None, 10, 100, 200)))
    def settle(self, place: Place, size: int | None) -> None:
        assert place.claim is not None
        hold = self.rows.holds[place.hold_id]
        is_open = hold.state is HoldState.OPEN
        answer = self.rows.answers.get(place.claim.id)
        has_claim = answer is None or answer.hold_id == place.hold_id
        settle = Settle(
            hold_id=place.hold_id,
            account_id=1,
            key_id=1,
            charge=60,
            prompt_tokens=1,
            completion_tokens=1,
            place=place,
            answer=None if size is None else b"a" * size,
        )
        outcome = self.do(settle)
        assert isinstance(outcome, Ended)
        if not is_open:
            assert outcome.charged == hold.charged
            return
        assert outcome.charged == (60 if has_claim else 0)
        if has_claim:
            self.books.spent += 60
            self.books.charges[place.hold_id] += 1
            self.books.paid[place.claim.id] = Paid(place.hold_id, self.now + KEEP)
            kept = self.rows.answers[place.claim.id]
            assert kept.state is not AnswerState.RUNNING
            assert (kept.content is None) == (kept.state is AnswerState.NOT_KEPT)

    @rule(place=placed)
    def release(self, place: Place) -> None:
        assert place.claim is not None
        before = self.rows.answers.get(place.claim.id)
        self.do(Release(hold_id=place.hold_id, account_id=1, key_id=1, claim=place.claim.id))
        after = self.rows.answers.get(place.claim.id)
        if before is not None and (
            before.hold_id != place.hold_id or before.state is not AnswerState.RUNNING
        ):
            assert after is before

    @rule(runner=st.sampled_from(("one", "two")))
    def renew(self, runner: str) -> None:
        for answer in self.rows.answers.values():
            if answer.runner == runner and answer.state is AnswerState.RUNNING:
                answer.until = self.now + LEASE

    @rule(key=st.sampled_from("ab"))
    def forget(self, key: str) -> None:
        self.do(Forget(answer_id=key, account_id=1))

    @rule(time=st.sampled_from((1, LEASE // 2, LEASE, KEEP, LAPSED_KEPT)))
    def wait(self, time: int) -> None:
        self.now += time

    @invariant()
    def nobody_pays_twice(self) -> None:
        assert all(count == 1 for count in self.books.charges.values())
        assert self.rows.accounts[1].balance == CREDIT - self.books.spent

    @invariant()
    def what_was_paid_for_is_there_until_it_expires(self) -> None:
        for key, paid in self.books.paid.items():
            if paid.until > self.now:
                assert self.rows.answers[key].hold_id == paid.hold_id

    @invariant()
    def sizes_add_up_and_are_bounded(self) -> None:
        sizes = sum(answer.size for answer in self.rows.answers.values())
        assert self.rows.accounts[1].answer_bytes == sizes <= MOST


def test_no_sequence_of_calls_pays_twice_for_a_key() -> None:
    machine = settings(examples(200), stateful_step_count=60)
    run_state_machine_as_test(Claims, settings=machine)

"""Decides who has an idempotency key. Pure, and a part of `decisions`.

    Place    no answer, or one that expired or whose process is gone   the key is claimed
             another one                                               Claimed: nothing is held
    Settle   the claim is still that of the hold                       the answer is stored
             the claim lapsed, and another call has it                 nothing is charged
    Release  the claim is still that of the hold                       the key is free
    Forget   the answer has expired                                    it is deleted

A claim names its hold. If a process pauses for longer than the lease of its claim, another process
can run the call again. Only the hold that has the claim is charged, so that the caller never pays
twice. A settlement that finds no answer at all keeps its charge: nobody else ran the call.
"""

from typing import Final

from service.ledger.rows import (
    AnswerRow,
    AnswerState,
    Changes,
    Claim,
    Claimed,
    Forget,
    Forgotten,
    Place,
    Rows,
    Settle,
)

LAPSED_KEPT: Final = 24 * 3600 * 10**9
"""Nanoseconds for which a lapsed claim is kept, so that a late settlement finds out whether another
call took it over."""


def taken(rows: Rows, claim: Claim, now: int) -> Claimed | None:
    """Return the call that has a claim, or None if the claim is free."""
    answer = rows.answers.get(claim.id)
    if answer is None or answer.until <= now:
        return None
    return Claimed(
        body=answer.body, hold_id=answer.hold_id, state=answer.state, charged=answer.charged
    )


def take(rows: Rows, place: Place, claim: Claim, now: int, changes: Changes) -> None:
    """Give a claim that is free to a hold."""
    former = rows.answers.get(claim.id)
    if former is not None:
        _discount(rows, former, changes)
    rows.answers[claim.id] = _answer(claim, place, AnswerState.RUNNING, now + claim.lease, now)
    changes.answers.add(claim.id)


def is_lost(rows: Rows, claim: Claim, hold_id: str) -> bool:
    """Return whether another call took over the claim of a hold, which is not charged then."""
    answer = rows.answers.get(claim.id)
    return answer is not None and answer.hold_id != hold_id


def store(  # noqa: PLR0917  (the rows, the operation and its parts, and the time, as in `decisions`)
    rows: Rows, settle: Settle, place: Place, claim: Claim, now: int, changes: Changes
) -> None:
    """Store the answer of a call that is charged, if it fits into the limit of its account."""
    account = rows.accounts[place.account_id]
    answer = _answer(claim, place, AnswerState.NOT_KEPT, now + claim.keep, now)
    answer.charged = rows.holds[settle.hold_id].charged
    content = settle.answer
    if content is not None and account.answer_bytes + len(content) <= claim.most:
        answer.state, answer.content, answer.size = AnswerState.KEPT, content, len(content)
        account.answer_bytes += len(content)
        changes.accounts.add(account.id)
    rows.answers[claim.id] = answer
    changes.answers.add(claim.id)


def free(rows: Rows, claim: str, hold_id: str, changes: Changes) -> None:
    """Free the claim of a hold that costs nothing, unless another call has it."""
    answer = rows.answers.get(claim)
    if answer is not None and answer.hold_id == hold_id and answer.state is AnswerState.RUNNING:
        del rows.answers[claim]
        changes.answers.add(claim)


def forget(rows: Rows, forget: Forget, now: int, changes: Changes) -> Forgotten:
    """Delete an answer that has expired, or a claim that lapsed long ago."""
    answer = rows.answers.get(forget.answer_id)
    if answer is None or answer.until > now:
        return Forgotten(deleted=False)
    if answer.state is AnswerState.RUNNING and answer.until > now - LAPSED_KEPT:
        return Forgotten(deleted=False)
    _discount(rows, answer, changes)
    del rows.answers[answer.id]
    changes.answers.add(answer.id)
    return Forgotten(deleted=True)


def _answer(claim: Claim, place: Place, state: AnswerState, until: int, now: int) -> AnswerRow:
    return AnswerRow(
        id=claim.id,
        account_id=place.account_id,
        key_id=place.key_id,
        body=claim.body,
        hold_id=place.hold_id,
        runner=claim.runner,
        state=state,
        until=until,
        created_at=now,
    )


def _discount(rows: Rows, answer: AnswerRow, changes: Changes) -> None:
    """Subtract the size of an answer that is deleted."""
    if answer.size:
        rows.accounts[answer.account_id].answer_bytes -= answer.size
        changes.accounts.add(answer.account_id)

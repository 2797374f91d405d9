"""Queries for stored answers, outside of batches.

Each blocks, and raises StoreError if the store is away.
"""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from service.ledger.claims import LAPSED_KEPT
from service.ledger.rows import AnswerState, Forget
from service.ledger.schema import answers
from service.ledger.store import Store

FORGOTTEN_AT_ONCE: Final = 256
"""Maximum answers that `expired` returns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """An answer, without its content."""

    hold_id: str
    state: AnswerState
    is_over: bool
    """Whether the claim has lapsed, or the answer has expired."""


class Answers:
    """The answers of a store.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def seen(self, answer_id: str) -> Seen | None:
        """Return the state of an answer, or None if there is none."""
        columns = answers.c.hold_id, answers.c.state, answers.c.until
        with self._store.reading() as connection:
            now = self._store.now(connection)
            found = connection.execute(sa.select(*columns).where(answers.c.id == answer_id))
            row = found.one_or_none()
        if row is None:
            return None
        state = AnswerState(row.state)
        return Seen(hold_id=row.hold_id, state=state, is_over=row.until <= now)

    def content(self, answer_id: str, hold_id: str) -> bytes | None:
        """Return the content of an answer; None if it is gone, or is that of another hold."""
        wanted = answers.c.id == answer_id, answers.c.hold_id == hold_id
        with self._store.reading() as connection:
            found = connection.execute(sa.select(answers.c.content).where(*wanted))
            content: bytes | None = found.scalar_one_or_none()
        return None if content is None else bytes(content)

    def renew(self, runner: str, lease: int) -> None:
        """Extend the claims of a process.

        Args:
            runner: The process.
            lease: Nanoseconds from now until they lapse.
        """
        running = answers.c.runner == runner, answers.c.state == AnswerState.RUNNING
        with self._store.writing() as connection:
            until = self._store.now(connection) + lease
            connection.execute(sa.update(answers).where(*running).values(until=until))

    def expired(self) -> list[Forget]:
        """Return operations that delete answers that have expired, up to some hundred."""
        with self._store.reading() as connection:
            now = self._store.now(connection)
            found = connection.execute(
                sa.select(answers.c.id, answers.c.account_id)
                .where(
                    answers.c.until <= now,
                    sa.or_(
                        answers.c.state != AnswerState.RUNNING,
                        answers.c.until <= now - LAPSED_KEPT,
                    ),
                )
                .order_by(answers.c.until)
                .limit(FORGOTTEN_AT_ONCE)
            )
            return [Forget(answer_id=row.id, account_id=row.account_id) for row in found]

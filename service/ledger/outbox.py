"""The outbox: events that wait to be sent, and dead letters. Each function blocks.

    claim -> due events, with a lease          of all processes that share the store, one gets each
    close -> delivered: deleted · failed: due later, or dead · unsent: due now

An event whose lease ends before it is closed is due again: its process was killed, or the store was
away. Each function is one transaction, and raises `StoreError` if the store is away. Times are
nanoseconds.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from service.ledger.rows import EntryKind, EventKind
from service.ledger.schema import accounts, api_keys, events, ledger
from service.ledger.store import Store

KEPT: Final = 30 * 24 * 3600 * 10**9
"""Nanoseconds for which dead letters are kept."""
MOST_COUNTED: Final = 100_000
"""The number up to which events are counted."""

_TIDIED_AT_ONCE: Final = 1000


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event with what it reports."""

    id: int
    event_id: str
    kind: EventKind
    account: str
    """The name of the account: that of the key for a charge, also if another one pays."""
    created_at: int
    attempts: int
    """The number of attempts to send it, this one included."""
    failure: str | None = None
    """Why the last attempt failed."""
    dead_at: int | None = None
    payer: str = ""
    """The name of the account that pays."""
    since: int = 0
    """The time from which its age counts: that of the event, or that of an operator's retry."""
    percent: int | None = None
    whole: int | None = None
    remaining: int | None = None
    window: str = ""
    """The window of a budget."""
    hold_id: str | None = None
    entry_kind: EntryKind | None = None
    amount: int = 0
    """The amount of the entry."""
    key: str = ""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    partial: bool = False
    estimated: bool = False


class Closing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The result of an attempt."""

    id: int
    attempts: int
    """As the claim returned them."""
    failure: str = ""
    """Why it failed; "" if the event was delivered."""
    again_in: int | None = None
    """The time until the next attempt; None if the event was delivered or is dead."""
    unsent: bool = False
    """Whether nothing was sent, so that the attempt does not count."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How much is in the outbox."""

    pending: int
    """The number of events that wait, up to `MOST_COUNTED`."""
    dead: int
    """The number of dead letters, up to `MOST_COUNTED`."""
    oldest: int | None
    """The time of the oldest event that waits; None if none does."""


class Outbox:
    """The outbox of a store.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, *, most: int, lease: int) -> list[Outgoing]:
        """Claim due events, oldest first. Write nothing if none is due.

        Args:
            most: Maximum number of events.
            lease: The time until they are due again.
        """
        due = sa.select(events.c.id).where(events.c.dead_at.is_(None))
        with self._store.reading() as connection:
            now = self._store.now(connection)
            found = connection.execute(due.where(events.c.due_at <= now).limit(1)).first()
        if found is None:
            return []
        with self._store.writing() as connection:
            now = self._store.now(connection)
            wanted = due.where(events.c.due_at <= now).order_by(events.c.due_at, events.c.id)
            # Not those that another process claims at this moment.
            locked = wanted.limit(most).with_for_update(skip_locked=True)
            ids = connection.execute(locked).scalars().all()
            connection.execute(
                sa.update(events)
                .where(events.c.id.in_(ids))
                .values(due_at=now + lease, attempts=events.c.attempts + 1)
            )
            return _outgoing(connection, events.c.id.in_(ids), order=events.c.id)

    def close(self, closings: Iterable[Closing]) -> None:
        """Record the results of attempts.

        A result of a claim that another one has replaced counts only if it delivered the event.
        """
        with self._store.writing() as connection:
            now = self._store.now(connection)
            for closing in closings:
                claimed = events.c.id == closing.id, events.c.attempts == closing.attempts
                if closing.unsent:
                    values: dict[str, Any] = {"due_at": now, "attempts": closing.attempts - 1}
                elif not closing.failure:
                    connection.execute(sa.delete(events).where(events.c.id == closing.id))
                    continue
                elif closing.again_in is None:
                    values = {"dead_at": now, "failure": closing.failure}
                else:
                    values = {"due_at": now + closing.again_in, "failure": closing.failure}
                connection.execute(sa.update(events).where(*claimed).values(values))

    def tidy(self, *, longest: int) -> int:
        """Give up events that wait too long, and delete old dead letters, some at a time.

        Args:
            longest: The time after which an event that was not delivered is dead.

        Returns:
            The number of events that are dead now.
        """
        with self._store.reading() as connection:
            now = self._store.now(connection)
            pending = sa.select(events.c.id).where(events.c.dead_at.is_(None))
            old = pending.where(events.c.due_at <= now, _SINCE + longest < now)
            late = connection.execute(old.limit(_TIDIED_AT_ONCE)).scalars().all()
            dead = sa.select(events.c.id).where(events.c.dead_at < now - KEPT)
            past = connection.execute(dead.limit(_TIDIED_AT_ONCE)).scalars().all()
        if not (late or past):
            return 0
        with self._store.writing() as connection:
            connection.execute(
                sa.update(events)
                .where(events.c.id.in_(late), events.c.dead_at.is_(None))
                .values(dead_at=now, failure=sa.func.coalesce(events.c.failure, "too old"))
            )
            connection.execute(sa.delete(events).where(events.c.id.in_(past)))
        return len(late)

    def waiting(self) -> Waiting:
        """Return how much is in the outbox."""
        with self._store.reading_at_once() as connection:
            pending, dead = (
                connection.execute(
                    sa.select(sa.func.count()).select_from(
                        sa.select(events.c.id).where(condition).limit(MOST_COUNTED).subquery()
                    )
                ).scalar_one()
                for condition in (events.c.dead_at.is_(None), events.c.dead_at.is_not(None))
            )
            oldest = connection.execute(
                sa.select(events.c.created_at)
                .where(events.c.dead_at.is_(None))
                .order_by(events.c.id)
                .limit(1)
            ).scalar_one_or_none()
        return Waiting(pending=pending, dead=dead, oldest=oldest)

    def listed(self, *, dead: bool, after: int = 0, limit: int = 100) -> list[Outgoing]:
        """Return events that wait, or dead letters, in the order of their ids.

        Args:
            dead: Whether to return dead letters.
            after: The id after which to start.
            limit: Maximum number of events.
        """
        state = events.c.dead_at.is_not(None) if dead else events.c.dead_at.is_(None)
        with self._store.reading() as connection:
            wanted = sa.and_(state, events.c.id > after)
            return _outgoing(connection, wanted, order=events.c.id, limit=limit)


def retry(connection: sa.Connection, now: int, event_id: str | None) -> int:
    """Make dead letters due again, as if they were new, and return their number.

    Args:
        connection: The transaction.
        now: The time.
        event_id: The id of the event; None for all dead letters.
    """
    done = connection.execute(
        sa.update(events)
        .where(*_dead(event_id))
        .values(dead_at=None, due_at=now, attempts=0, retried_at=now)
    )
    return done.rowcount


def drop(connection: sa.Connection, event_id: str | None) -> int:
    """Delete dead letters, and return their number.

    Args:
        connection: The transaction.
        event_id: The id of the event; None for all dead letters.
    """
    return connection.execute(sa.delete(events).where(*_dead(event_id))).rowcount


def _dead(event_id: str | None) -> Sequence[sa.ColumnElement[bool]]:
    named = () if event_id is None else (events.c.event_id == event_id,)
    return (events.c.dead_at.is_not(None), *named)


_OWNERS: Final = accounts.alias("owners")
_SINCE: Final = sa.func.coalesce(events.c.retried_at, events.c.created_at)
_OUTGOING: Final = (
    sa.select(
        *(events.c.id, events.c.event_id, events.c.kind, events.c.created_at),
        *(events.c.attempts, events.c.failure, events.c.dead_at, _SINCE.label("since")),
        *(events.c.percent, events.c.whole, events.c.remaining, events.c.hold_id),
        events.c.window,
        accounts.c.name.label("payer"),
        sa.func.coalesce(_OWNERS.c.name, accounts.c.name).label("account"),
        ledger.c.kind.label("entry_kind"),
        *(ledger.c.amount, ledger.c.model, ledger.c.prompt_tokens, ledger.c.completion_tokens),
        *(ledger.c.partial, ledger.c.estimated),
        api_keys.c.name.label("key"),
    )
    .join(accounts, accounts.c.id == events.c.account_id)
    .outerjoin(ledger, ledger.c.hold_id == events.c.hold_id)
    .outerjoin(
        api_keys,
        api_keys.c.id
        == sa.case((events.c.kind == EventKind.USAGE, ledger.c.key_id), else_=events.c.key_id),
    )
    .outerjoin(_OWNERS, _OWNERS.c.id == api_keys.c.account_id)
)


def _outgoing(
    connection: sa.Connection,
    condition: sa.ColumnElement[bool],
    *,
    order: sa.ColumnElement[Any],
    limit: int | None = None,
) -> list[Outgoing]:
    found = connection.execute(_OUTGOING.where(condition).order_by(order).limit(limit))
    return [
        Outgoing(
            id=row.id,
            event_id=row.event_id,
            kind=EventKind(row.kind),
            account=row.account,
            payer=row.payer,
            created_at=row.created_at,
            attempts=row.attempts,
            failure=row.failure,
            dead_at=row.dead_at,
            since=row.since,
            percent=row.percent,
            whole=row.whole,
            remaining=row.remaining,
            hold_id=row.hold_id,
            window=row.window or "",
            entry_kind=None if row.entry_kind is None else EntryKind(row.entry_kind),
            amount=row.amount or 0,
            key=row.key or "",
            model=row.model or "",
            prompt_tokens=row.prompt_tokens or 0,
            completion_tokens=row.completion_tokens or 0,
            partial=bool(row.partial),
            estimated=bool(row.estimated),
        )
        for row in found
    ]

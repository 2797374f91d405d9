"""The audit log: who did what to which account, and when. Rows are added and never changed.

    act(Act(actor, request))     a context in which an operator's operation runs
      writing(store)             a transaction, which commits the act together with its effect

An act that fails is not recorded, because it changed nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from service.accounts.key_rows import StoredRow
from service.ledger.schema import audit
from service.ledger.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """An operator's operation."""

    actor: str
    """Who: such as "cli:root" or "rpc:192.0.2.7"."""
    method: str
    """What: the name of the RPC, also for commands."""
    account: str
    """The name of the account."""
    request: str
    """The request as JSON. Requests that change something have no secrets."""


_CURRENT: Final[ContextVar[Act | None]] = ContextVar("act", default=None)


@contextmanager
def act(this: Act) -> Iterator[None]:
    """Record this act with the transactions of the context, which run in this thread."""
    token = _CURRENT.set(this)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextmanager
def writing(store: Store) -> Iterator[sa.Connection]:
    """Begin a transaction that writes. Its end commits it, with the act of the context.

    Raises:
        StoreError: The store is away.
    """
    with store.writing() as connection:
        yield connection
        done = _CURRENT.get()
        if done is not None:
            values = {
                "created_at": store.now(connection),
                "actor": done.actor,
                "method": done.method,
                "account": done.account,
                "request": done.request,
            }
            connection.execute(sa.insert(audit), values)


def record(store: Store) -> None:
    """Record the act of the context alone, because its effect has been committed.

    Raises:
        StoreError: The store is away. The effect stays.
    """
    with writing(store):
        pass


def entries(
    store: Store, *, account: str | None = None, before: int | None = None, limit: int = 100
) -> Sequence[StoredRow]:
    """Return recorded acts, newest first.

    Args:
        store: The store.
        account: Return only the acts on this account.
        before: The id of the act before which to start.
        limit: Maximum number of acts.

    Raises:
        StoreError: The store is away.
    """
    wanted = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    if account is not None:
        wanted = wanted.where(audit.c.account == account)
    if before is not None:
        wanted = wanted.where(audit.c.id < before)
    with store.reading() as connection:
        return connection.execute(wanted).all()

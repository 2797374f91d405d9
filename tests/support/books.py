"""The accounts of a store, read and written by a test through a separate connection.

team = books.team(credit=CREDIT, requests_per_minute=60)    an account, and a key
books.charges(team)            [Charge(amount, prompt, completion, partial, estimated)]
books.nothing_is_open()        checks holds and balances
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import sqlalchemy as sa

from service.accounts.directory import Directory
from service.accounts.verification import Difference, differences
from service.ledger.rows import EntryKind, Grant, HoldState
from service.ledger.schema import accounts, api_keys, holds
from service.ledger.store import Store
from tests.support.priced_models import CREDIT


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """A charge in the ledger."""

    amount: int
    prompt: int
    completion: int
    partial: bool = False
    estimated: bool = False
    kind: EntryKind = EntryKind.SETTLE


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """An account with one key."""

    name: str
    account_id: int
    key_id: int
    key_name: str
    key: str


class Books:
    """The accounts of a store, read and written by a test.

    Args:
        url: The store.
    """

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.directory = Directory(self.store)
        self._names = count(1)

    def team(self, *, credit: int = CREDIT, **limits: Any) -> Team:
        """Create an account with credit, in nano-credits, and a key."""
        name = f"team-{next(self._names)}"
        account = self.directory.create_account(name)
        if credit:
            self.grant(account.id, credit)
        view, key = self.directory.create_key(name, "key", **limits)
        return Team(name=name, account_id=account.id, key_id=view.id, key_name=view.name, key=key)

    def grant(self, account_id: int, amount: int) -> None:
        """Add credit."""
        name = f"grant-{next(self._names)}"
        self.store.apply([Grant(account_id=account_id, amount=amount, idempotency_id=name)])

    def balance(self, team: Team) -> int:
        """Return a team's balance, including the held part."""
        return int(self.directory.account(team.name).balance)

    def held(self, team: Team) -> int:
        """Return the held part of a team's balance."""
        return int(self.directory.account(team.name).held)

    def running(self, team: Team) -> int:
        """Return the number of open holds of a team's key, from the key's row."""
        with self.store.reading() as connection:
            wanted = sa.select(api_keys.c.running).where(api_keys.c.id == team.key_id)
            return int(connection.execute(wanted).scalar_one())

    def holds(self, team: Team) -> list[int]:
        """Return the amounts of all holds of a team's key, oldest first."""
        with self.store.reading() as connection:
            wanted = sa.select(holds.c.amount).where(holds.c.key_id == team.key_id)
            return list(connection.execute(wanted.order_by(holds.c.created_at)).scalars())

    def charges(self, team: Team) -> list[Charge]:
        """Return a team's charges, oldest first."""
        return [
            Charge(
                amount=-entry.amount,
                prompt=entry.prompt_tokens,
                completion=entry.completion_tokens,
                partial=entry.partial,
                estimated=entry.estimated,
                kind=entry.kind,
            )
            for entry in reversed(self.directory.reports.ledger(team.name, limit=10_000))
            if entry.kind not in {EntryKind.GRANT, EntryKind.DEDUCT}
        ]

    def no_hold_is_open(self) -> bool:
        """Return whether every hold has ended."""
        with self.store.reading() as connection:
            wanted = sa.select(holds.c.id).where(holds.c.state == HoldState.OPEN).limit(1)
            return connection.execute(wanted).first() is None

    def differences(self) -> list[Difference]:
        """Return the accounts whose row differs from the ledger and the holds."""
        return list(differences(self.store))

    def nothing_is_open(self) -> None:
        """Check that no hold is open and that all balances match the ledger.

        Raises:
            AssertionError: A hold is open, or a balance differs.
        """
        with self.store.reading() as connection:
            held = connection.execute(sa.select(sa.func.sum(accounts.c.held))).scalar_one()
            running = connection.execute(sa.select(sa.func.sum(api_keys.c.running))).scalar_one()
        assert (held or 0, running or 0) == (0, 0)
        assert self.differences() == []

    def close(self) -> None:
        """Close the store."""
        self.store.close()


@contextmanager
def books(url: str) -> Iterator[Books]:
    """Open books, and close them at the end."""
    opened = Books(url)
    try:
        yield opened
    finally:
        opened.close()

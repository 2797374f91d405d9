"""The accounts, keys and processes of the machine."""

from collections.abc import Mapping
from typing import Final

from service.ledger.rows import Account, Key

SECOND: Final = 10**9
HOUR: Final = 3600 * SECOND
BEGINNING: Final = 1_800_000_000 * SECOND
LONGEST_LEASE: Final = 120 * SECOND

PARENTS: Final[Mapping[int, int]] = {3: 1, 4: 3}
"""The parents of the groups."""
ACCOUNTS: Final = (
    Account(id=1, balance=0, held=0),
    Account(id=2, balance=0, held=0),
    Account(id=3, balance=0, held=0, parent_id=1),
    Account(id=4, balance=0, held=0, parent_id=3),
)
PAYERS: Final = (1, 2)
KEYS: Final = (
    Key(id=1, account_id=1),
    Key(id=2, account_id=1, requests_per_minute=7, concurrency=2),
    Key(id=3, account_id=1, tokens_per_minute=997, models=frozenset({"small"})),
    Key(id=4, account_id=2, requests_per_minute=61, tokens_per_minute=7_000_000, concurrency=5),
    Key(id=5, account_id=2, expires_at=BEGINNING + 10 * 60 * SECOND, concurrency=1),
    Key(id=6, account_id=2, requests_per_minute=1, tokens_per_minute=1),
    Key(id=7, account_id=3),
    Key(id=8, account_id=4, tokens_per_minute=5_003),
)
MODELS: Final = ("small", "large")
PROCESSES: Final = 3
ZONES: Final = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/Havana", "Pacific/Kiritimati")

Scope = tuple[str, int]
"""A key or an account: ("key" or "account", id)."""
SCOPES: Final[tuple[Scope, ...]] = (
    *(("account", account.id) for account in ACCOUNTS),
    *(("key", id_) for id_ in (1, 4, 7)),
)
"""Those that get budgets."""


def parents(account_id: int) -> tuple[int, ...]:
    """Return the accounts above an account, from its parent to the one that pays."""
    parent = PARENTS.get(account_id)
    return () if parent is None else (parent, *parents(parent))


def payer(account_id: int) -> int:
    """Return the account that pays for an account."""
    return (account_id, *parents(account_id))[-1]

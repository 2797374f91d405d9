"""What the directory returns: accounts, keys, entries and usage, as plain values.

Amounts are nano-credits, times nanoseconds since the Unix epoch.
"""

from dataclasses import dataclass

from service.ledger.rates import Level
from service.ledger.rows import EntryKind

Levels = tuple[Level | None, Level | None]
"""How much is left of a key's requests and of its tokens; None is no limit."""


class NotFoundError(LookupError):
    """There is no such account, key or grant."""


class AccountNotFoundError(NotFoundError):
    """There is no account of this name."""


class KeyNotFoundError(NotFoundError):
    """The account has no key of this name."""


class ExistsError(ValueError):
    """The name is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountView:
    """An account, as operators see it. Amounts in nano-credits, times in nanoseconds."""

    id: int
    name: str
    balance: int
    held: int
    created_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyView:
    """A key, as operators see it: without the key."""

    id: int
    account: str
    """The name of its account."""
    name: str
    models: tuple[str, ...] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    expires_at: int | None
    revoked_at: int | None
    created_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryView:
    """A row of the ledger."""

    id: int
    kind: EntryKind
    amount: int
    created_at: int
    hold_id: str | None
    key_name: str | None
    model: str | None
    prompt_tokens: int
    completion_tokens: int
    partial: bool
    estimated: bool
    idempotency_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What was used of a model with a key in one interval."""

    start: int
    """When the interval begins."""
    key_name: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    charged: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """What a caller sees of its account, all of one moment."""

    account: AccountView
    key: KeyView
    usage: list[Usage]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Something stored that is not what its ledger or holds say."""

    account: str
    of: str
    """`balance`, `held`, `charged` (the sums of usage), or `running KEY`."""
    stored: int
    """Nano-credits; of `running`, calls."""
    recomputed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyLimits:
    """What a new key may do; None is no limit."""

    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    expires_at: int | None = None

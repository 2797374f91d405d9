"""What is stored, as values in memory, and what can be asked of it.

    Place ─► Placed | Refused          a hold, with every limit, all or nothing
    Settle ─► Ended                    a hold becomes a charge, even if it expired before
    Release ─► Ended                   a hold becomes nothing
    Expire ─► Ended                    the same, for a hold whose lease ran out
    Grant ─► Granted                   credit is added

Every operation may be sent again: once it had its effect it has none any more, and answers the
same. What was refused had no effect and left no trace: sent again, it is tried again.
Amounts are integer nano-credits, times nanoseconds since the Unix epoch.

They are structs of msgspec, made in a tenth of a dataclass's time: a request makes a dozen. None is
part of a cycle, so that the garbage collector need not look at them.
"""

import enum

import msgspec

from service.ledger.rates import Level


class HoldState(enum.IntEnum):
    """Where a hold is in its life; each but OPEN is an end."""

    OPEN = 0
    SETTLED = 1
    RELEASED = 2
    EXPIRED = 3
    """Its lease ran out. A settlement that comes after all makes it SETTLED."""


class EntryKind(enum.IntEnum):
    """Why a balance changed."""

    GRANT = 0
    SETTLE = 1
    ADJUST = 2
    """A settlement that came after its hold had expired."""


class Refusal(enum.Enum):
    """Why a hold was not placed."""

    KEY = "the key is unknown, revoked or expired"
    MODEL = "the key may not use the model"
    CREDIT = "the balance does not cover it"
    HELD = "the balance would cover it, but for other holds"
    REQUESTS = "requests per minute"
    TOKENS = "tokens per minute"
    CONCURRENCY = "concurrent calls"


class Account(msgspec.Struct, kw_only=True, gc=False):
    """A row of accounts."""

    id: int
    balance: int
    """What is left, the held part included; the sum of the ledger."""
    held: int
    """The sum of the open holds."""


class Key(msgspec.Struct, kw_only=True, gc=False):
    """A row of api_keys, without its digest. A limit of None is none."""

    id: int
    account_id: int
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    requests_tat: int = 0
    tokens_tat: int = 0
    running: int = 0
    """How many of its holds are open."""


class Hold(msgspec.Struct, kw_only=True, gc=False):
    """A row of holds."""

    id: str
    account_id: int
    key_id: int
    amount: int
    """What was held while it was open: the most that is ever charged."""
    tokens: int
    """Taken from the tokens per minute."""
    model: str
    owner: str
    """The process that placed it."""
    created_at: int
    lease_until: int
    state: HoldState = HoldState.OPEN
    ended_at: int | None = None
    charged: int = 0
    """What the settlement took."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of the ledger, before it has its number."""

    account_id: int
    kind: EntryKind
    amount: int
    """Positive is credit, negative a charge."""
    created_at: int
    hold_id: str | None = None
    key_id: int | None = None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    partial: bool = False
    estimated: bool = False
    idempotency_id: str | None = None


# ---------------------------------------------------------------------------------- operations


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold an amount for a request."""

    hold_id: str
    """Of this request alone and made here: a caller that chose it could pay for two with one."""
    account_id: int
    key_id: int
    amount: int
    """At least 0."""
    tokens: int
    """At least 0."""
    model: str
    owner: str
    lease: int
    """Nanoseconds."""


class Settle(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="settle"):
    """Charge what a request used and end its hold."""

    hold_id: str
    account_id: int
    key_id: int
    charge: int
    """The price of what was used, at least 0; more than the hold is not taken."""
    prompt_tokens: int
    completion_tokens: int
    partial: bool = False
    estimated: bool = False


class Release(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="release"):
    """End the hold of a request that costs nothing."""

    hold_id: str
    account_id: int
    key_id: int


class Expire(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """End a hold if its lease ran out."""

    hold_id: str
    account_id: int
    key_id: int


class Grant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Add credit."""

    account_id: int
    amount: int
    """At least 1."""
    idempotency_id: str
    """Of one grant to the account: the first amount that comes with it counts."""


Operation = Place | Settle | Release | Expire | Grant


# ------------------------------------------------------------------------------------ outcomes


class Placed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The hold stands."""

    requests: Level | None
    tokens: Level | None


class Refused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """No hold; nothing changed."""

    refusal: Refusal
    available: int = 0
    """Nano-credits that a hold could have had: of the balance, or for HELD of what is not held."""
    wait: int = 0
    """Nanoseconds until it may succeed; 0 where no wait is known to help."""
    requests: Level | None = None
    tokens: Level | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The hold is over."""

    state: HoldState | None
    """How it ended, now or before; None where there is no such hold, or it is not to expire yet."""
    charged: int = 0
    """What its settlement took, now or before."""
    lost: int = 0
    """Of a settlement: what was used but not charged, being above what could be taken."""


class Granted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The credit is there."""

    balance: int | None
    """What the account has now. None where there is no such account, or its balance would be too
    large or less than what is held."""


Outcome = Placed | Refused | Ended | Granted


class Rows(msgspec.Struct, kw_only=True):
    """The rows that a batch of operations touches; what is not here does not exist."""

    accounts: dict[int, Account] = msgspec.field(default_factory=dict)
    keys: dict[int, Key] = msgspec.field(default_factory=dict)
    holds: dict[str, Hold] = msgspec.field(default_factory=dict)
    grants: set[tuple[int, str]] = msgspec.field(default_factory=set)
    """Accounts and idempotency ids of grants that were made."""


class Changes(msgspec.Struct, kw_only=True):
    """What a batch changed, to be written."""

    accounts: set[int] = msgspec.field(default_factory=set)
    keys: set[int] = msgspec.field(default_factory=set)
    placed: list[str] = msgspec.field(default_factory=list)
    ended: list[str] = msgspec.field(default_factory=list)
    entries: list[Entry] = msgspec.field(default_factory=list)

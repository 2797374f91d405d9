"""Stored rows as values in memory, and the operations on them.

    Place -> Placed | Refused          hold credit and take from all limits, or from none
          -> Claimed                   another call has the idempotency key: nothing changes
    Settle -> Ended                    charge and end a hold, even if it has expired
    Release -> Ended                   end a hold without a charge
    Expire -> Ended                    end a hold whose lease has expired
    Grant -> Granted                   add credit, or take credit back
    Forget -> Forgotten                delete an answer that has expired

Operations are idempotent: sending one again has no further effect and returns the same outcome. A
rejected operation has no effect; sending it again tries it again.
Amounts are integer nano-credits, times nanoseconds since the Unix epoch.

The values are msgspec structs, which are created in a tenth of the time of dataclasses; a request
creates a dozen. They form no cycles, so that the garbage collector can ignore them.
"""

import enum

import msgspec

from service.ledger.budgets import Budgets, Window
from service.ledger.rate_limits import Level


class HoldState(enum.IntEnum):
    """The state of a hold. Every state except OPEN is final, except that EXPIRED can be SETTLED."""

    OPEN = 0
    SETTLED = 1
    RELEASED = 2
    EXPIRED = 3
    """Its lease expired. A later settlement makes it SETTLED."""


class AnswerState(enum.IntEnum):
    """The state of the answer to a call with an idempotency key."""

    RUNNING = 0
    """The call runs, as long as its process renews the claim."""
    KEPT = 1
    """The call was charged, and the answer is stored."""
    NOT_KEPT = 2
    """The call was charged, but its answer is not stored: it was too large, or the store was away
    when the call ended."""


class EntryKind(enum.IntEnum):
    """The reason why a balance changed."""

    GRANT = 0
    SETTLE = 1
    ADJUST = 2
    """A settlement after its hold had expired or was lost."""
    DEDUCT = 3
    """Credit was taken back."""


class Refusal(enum.Enum):
    """The reason why a hold was rejected."""

    KEY = "the key is unknown, revoked or expired"
    SUSPENDED = "the account or the key is suspended"
    MODEL = "the key may not use the model"
    CREDIT = "the balance does not cover it"
    HELD = "the balance would cover it, but for other holds"
    BUDGET = "a budget is spent"
    BUDGET_HELD = "a budget would cover it, but for other holds"
    REQUESTS = "requests per minute"
    TOKENS = "tokens per minute"
    CONCURRENCY = "concurrent calls"


class Account(msgspec.Struct, kw_only=True, gc=False):
    """A row of accounts: one that pays, or a group below it."""

    id: int
    balance: int
    """The sum of the ledger entries, including the held part. A group has neither."""
    held: int
    """The sum of the open holds, those of its groups included."""
    suspended_at: int | None = None
    """The time since which its keys and those of its groups are refused."""
    parent_id: int | None = None
    """The account above a group; None for one that pays."""
    budgets: Budgets | None = None
    answer_bytes: int = 0
    """The size of its stored answers."""
    full_balance: int = 0
    """The balance after credit was last added, of which thresholds are percentages."""


class Key(msgspec.Struct, kw_only=True, gc=False):
    """A row of api_keys, without its digest. For a limit, None means no limit."""

    id: int
    account_id: int
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    created_at: int = 0
    requests_tat: int = 0
    tokens_tat: int = 0
    running: int = 0
    """The number of its open holds."""
    suspended_at: int | None = None
    rotated_at: int | None = None
    """The time at which it got its present secret; None if it never had another one."""
    former_until: int | None = None
    """The time until which its former secret is valid too."""
    used_at: int | None = None
    """The time of its last hold."""
    budgets: Budgets | None = None


class Hold(msgspec.Struct, kw_only=True, gc=False):
    """A row of holds."""

    id: str
    account_id: int
    """The account that pays."""
    key_id: int
    amount: int
    """The held amount, which is the maximum charge."""
    tokens: int
    """The tokens that were taken from the limit of tokens per minute."""
    model: str
    owner: str
    """The process that placed it."""
    created_at: int
    lease_until: int
    state: HoldState = HoldState.OPEN
    ended_at: int | None = None
    charged: int = 0
    """The charge of its settlement."""
    windows: str | None = None
    """The serials of the windows that it counts in: those of its key, a semicolon, those of the
    key's account, and so on to the account that pays. None without budgets."""


class AnswerRow(msgspec.Struct, kw_only=True, gc=False):
    """A row of answers. A batch reads it without its content."""

    id: str
    account_id: int
    key_id: int
    body: str
    """The digest of the request."""
    hold_id: str
    """The hold of the call, which distinguishes it from other calls with the key."""
    runner: str
    """The process that runs the call."""
    state: AnswerState
    until: int
    """The time at which a claim that is not renewed lapses, or a stored answer expires."""
    created_at: int
    charged: int = 0
    size: int = 0
    content: bytes | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of the ledger, without its id."""

    account_id: int
    """The account that pays."""
    kind: EntryKind
    amount: int
    """Positive for credit; negative for a charge and for credit that was taken back."""
    created_at: int
    hold_id: str | None = None
    key_id: int | None = None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    partial: bool = False
    estimated: bool = False
    idempotency_id: str | None = None
    prices_from: int | None = None
    """The time from which the applied prices hold; None for prices without a time."""


class EventKind(enum.IntEnum):
    """What an event reports."""

    USAGE = 0
    """A charge."""
    CREDIT_THRESHOLD = 1
    """So many percent of the credit of an account are used."""
    BUDGET_THRESHOLD = 2
    """So many percent of a budget are spent."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of events that is to be sent, without its id."""

    event_id: str
    """The id for receivers: the hold of a charge, or the threshold and the entry that crossed it.
    If an event is sent again, it has the same id."""
    kind: EventKind
    account_id: int
    created_at: int
    due_at: int
    """The time of the next attempt to send it."""
    hold_id: str | None = None
    """The hold of the charge."""
    percent: int | None = None
    """The threshold."""
    whole: int | None = None
    """The amount of which the threshold is a part."""
    remaining: int | None = None
    """The amount that remains."""
    key_id: int | None = None
    """The key whose budget it is; None for a budget of the account."""
    window: str | None = None
    """The window of the budget."""


# ---------------------------------------------------------------------------------- operations


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The idempotency key of a call, which one call at a time can have."""

    id: str
    """The API key and the digest of the idempotency key."""
    body: str
    """The digest of the request."""
    runner: str
    """The process that runs the call, by a name that no other process ever had."""
    lease: int
    """Nanoseconds until the claim lapses if it is not renewed."""
    keep: int
    """Nanoseconds for which the answer is stored."""
    most: int
    """Maximum bytes of all stored answers of the account."""


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold an amount for a request."""

    hold_id: str
    """A new id for each request. Callers must not choose it: they could pay for two with one."""
    account_id: int
    """The account of the key, as in the other operations on holds."""
    key_id: int
    amount: int
    """At least 0."""
    tokens: int
    """At least 0."""
    model: str
    owner: str
    lease: int
    """Nanoseconds."""
    key_created_at: int = 0
    """The time at which the key was created, which distinguishes it from a key of another store."""
    key_rotated_at: int | None = None
    """The time at which the key got the secret that the caller sent; None for its first or a former
    secret."""
    parents: tuple[int, ...] = ()
    """The accounts above the key's, from its parent to the one that pays, as in the other
    operations on holds."""
    claim: Claim | None = None
    """The idempotency key of the call; None for none."""


class Settle(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="settle"):
    """Charge the usage of a request and end its hold."""

    hold_id: str
    account_id: int
    key_id: int
    charge: int
    """The price of the usage, at least 0. At most the hold is charged."""
    prompt_tokens: int
    completion_tokens: int
    prompt_charge: int = 0
    """The part of the charge for the prompt."""
    prices_from: int | None = None
    """The time from which the prices of the charge hold; None for prices without a time."""
    partial: bool = False
    estimated: bool = False
    place: Place | None = None
    """The hold, in case the store has lost it: SQLite does not flush a hold to disk."""
    parents: tuple[int, ...] = ()
    answer: bytes | None = None
    """The answer to store for the claim of the hold; None to store none."""


class Release(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="release"):
    """End the hold of a request that costs nothing."""

    hold_id: str
    account_id: int
    key_id: int
    parents: tuple[int, ...] = ()
    claim: str = ""
    """The id of the claim of the hold, which becomes free; "" for none."""


class Expire(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """End a hold if its lease has expired."""

    hold_id: str
    account_id: int
    key_id: int
    parents: tuple[int, ...] = ()


class Grant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Add credit, or take credit back."""

    account_id: int
    amount: int
    """Not 0. Below 0, it is taken back."""
    idempotency_id: str
    """The idempotency id, unique in the account. The first grant with it counts."""


class Forget(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Delete an answer that has expired."""

    answer_id: str
    account_id: int


Operation = Place | Settle | Release | Expire | Grant | Forget


# ------------------------------------------------------------------------------------ outcomes


class Placed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The hold was placed."""

    requests: Level | None
    tokens: Level | None


class Exceeded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The budget that rejected a hold, as it was."""

    account_id: int | None
    """The account whose budget it is; None for the key's."""
    window: Window
    time_zone: str
    limit: int
    spent: int
    held: int
    end: int | None
    """The time at which the next window begins; None for TOTAL."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The hold was rejected; nothing changed."""

    refusal: Refusal
    available: int = 0
    """Nano-credits that a hold could have of the balance and of every budget; for CREDIT and BUDGET
    those that could be available once the open holds have ended."""
    budget: Exceeded | None = None
    """For BUDGET and BUDGET_HELD, the budget."""
    wait: int = 0
    """Nanoseconds after which it can succeed; 0 if waiting does not help."""
    concurrency: int = 0
    """For CONCURRENCY, the limit of the key."""
    requests: Level | None = None
    tokens: Level | None = None


class Claimed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Another call has the idempotency key, or had it; nothing changed."""

    body: str
    """The digest of the request of that call."""
    hold_id: str
    state: AnswerState
    charged: int
    requests: Level | None = None
    tokens: Level | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The hold has ended."""

    state: HoldState | None
    """The final state, now or before; None if there is no such hold or it does not expire yet."""
    charged: int = 0
    """The charge of its settlement, now or before."""
    lost: int = 0
    """The usage above the charge of a settlement, which cannot be charged."""


class Granted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of a grant."""

    balance: int | None
    """The balance after the grant. None if there is no such account, if it is a group, or if the
    balance would be too large or below the held amount."""


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of a Forget."""

    deleted: bool


Outcome = Placed | Refused | Claimed | Ended | Granted | Forgotten


class Rows(msgspec.Struct, kw_only=True):
    """The rows that a batch of operations touches. A row that is not here does not exist."""

    accounts: dict[int, Account] = msgspec.field(default_factory=dict)
    keys: dict[int, Key] = msgspec.field(default_factory=dict)
    holds: dict[str, Hold] = msgspec.field(default_factory=dict)
    grants: set[tuple[int, str]] = msgspec.field(default_factory=set)
    """The account and idempotency id of each existing grant."""
    answers: dict[str, AnswerRow] = msgspec.field(default_factory=dict)


class Changes(msgspec.Struct, kw_only=True):
    """The changes of a batch, which are to be written."""

    accounts: set[int] = msgspec.field(default_factory=set)
    keys: set[int] = msgspec.field(default_factory=set)
    placed: list[str] = msgspec.field(default_factory=list)
    ended: list[str] = msgspec.field(default_factory=list)
    entries: list[Entry] = msgspec.field(default_factory=list)
    answers: set[str] = msgspec.field(default_factory=set)
    """The answers to insert or to replace, or to delete if the rows do not have them any more."""
    events: list[Event] = msgspec.field(default_factory=list)
    thresholds: tuple[int, ...] | None = None
    """The percentages of credit that are reported; None if nobody wants events."""

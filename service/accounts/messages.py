"""What the store knows, as messages of the contract; and the limits of a new key, read from one.

    AccountView ─► Account          KeyView ─► ApiKey
    EntryView   ─► LedgerEntry      Usage   ─► UsageTotal
    KeyLimits of the contract ─► KeyLimits of the directory

Times are nanoseconds since the Unix epoch here, `google.protobuf.Timestamp` there.
"""

from collections.abc import Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from chatcompletion.v1 import account_pb2
from service.accounts.views import AccountView, EntryView, KeyLimits, KeyView, Usage
from service.ledger.rows import EntryKind

_SECOND: Final = 10**9

KINDS: Final[Mapping[EntryKind, account_pb2.LedgerEntryKind.ValueType]] = {
    EntryKind.GRANT: account_pb2.LEDGER_ENTRY_KIND_GRANT,
    EntryKind.SETTLE: account_pb2.LEDGER_ENTRY_KIND_SETTLEMENT,
    EntryKind.ADJUST: account_pb2.LEDGER_ENTRY_KIND_ADJUSTMENT,
}
"""The kinds of entries, as the contract names them."""


def account(view: AccountView) -> account_pb2.Account:
    """Return an account."""
    return account_pb2.Account(
        name=view.name,
        balance_nano_credits=view.balance,
        held_nano_credits=view.held,
        available_nano_credits=view.balance - view.held,
        create_time=_timestamp(view.created_at),
    )


def api_key(view: KeyView) -> account_pb2.ApiKey:
    """Return a key."""
    models = None if view.models is None else account_pb2.AllowedModels(names=view.models)
    return account_pb2.ApiKey(
        account=view.account,
        name=view.name,
        limits=account_pb2.KeyLimits(
            models=models,
            requests_per_minute=view.requests_per_minute,
            tokens_per_minute=view.tokens_per_minute,
            concurrency=view.concurrency,
            expire_time=_timestamp(view.expires_at),
        ),
        revoke_time=_timestamp(view.revoked_at),
        create_time=_timestamp(view.created_at),
    )


def entry(view: EntryView) -> account_pb2.LedgerEntry:
    """Return an entry of the ledger."""
    return account_pb2.LedgerEntry(
        id=view.id,
        kind=KINDS[view.kind],
        amount_nano_credits=view.amount,
        create_time=_timestamp(view.created_at),
        idempotency_id=view.idempotency_id or "",
        hold_id=view.hold_id or "",
        key_name=view.key_name or "",
        model=view.model or "",
        prompt_tokens=view.prompt_tokens,
        completion_tokens=view.completion_tokens,
        partial=view.partial,
        estimated=view.estimated,
    )


def usage(view: Usage) -> account_pb2.UsageTotal:
    """Return a sum of usage."""
    return account_pb2.UsageTotal(
        start_time=_timestamp(view.start),
        key_name=view.key_name,
        model=view.model,
        requests=view.requests,
        prompt_tokens=view.prompt_tokens,
        completion_tokens=view.completion_tokens,
        charged_nano_credits=view.charged,
    )


def key_limits(message: account_pb2.KeyLimits) -> KeyLimits:
    """Return what a new key may do. The message is valid."""

    def limit(name: str) -> int | None:
        return int(getattr(message, name)) if message.HasField(name) else None  # type: ignore[arg-type]  # typed as literals

    return KeyLimits(
        models=tuple(message.models.names) if message.HasField("models") else None,
        requests_per_minute=limit("requests_per_minute"),
        tokens_per_minute=limit("tokens_per_minute"),
        concurrency=limit("concurrency"),
        expires_at=nanoseconds(message.expire_time) if message.HasField("expire_time") else None,
    )


def nanoseconds(instant: Timestamp) -> int:
    """Return a timestamp in nanoseconds since the Unix epoch; -1 where it is none.

    Its own comment says so: nanos count forward, and are less than a second.
    """
    if not 0 <= instant.nanos < _SECOND:
        return -1
    return int(instant.seconds) * _SECOND + int(instant.nanos)


def _timestamp(instant: int | None) -> Timestamp | None:
    if instant is None:
        return None
    seconds, nanos = divmod(instant, _SECOND)
    return Timestamp(seconds=seconds, nanos=nanos)

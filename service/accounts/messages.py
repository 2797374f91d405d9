"""Converts rows of the directory to messages of the contract, and key limits from a message.

Times are nanoseconds since the Unix epoch in rows, `google.protobuf.Timestamp` in messages.
"""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from chatcompletion.v1 import account_pb2
from service.accounts.budget_rows import current
from service.accounts.key_rows import StoredRow
from service.credit_worth import CreditWorth
from service.ledger.budgets import Budget, Window, available
from service.ledger.rows import EntryKind

_SECOND: Final = 10**9

KINDS: Final[Mapping[EntryKind, account_pb2.LedgerEntryKind.ValueType]] = {
    EntryKind.GRANT: account_pb2.LEDGER_ENTRY_KIND_GRANT,
    EntryKind.SETTLE: account_pb2.LEDGER_ENTRY_KIND_SETTLEMENT,
    EntryKind.ADJUST: account_pb2.LEDGER_ENTRY_KIND_ADJUSTMENT,
    EntryKind.DEDUCT: account_pb2.LEDGER_ENTRY_KIND_DEDUCTION,
}
"""The contract's value for each kind of ledger entry."""


WINDOWS: Final[Mapping[account_pb2.BudgetWindow.ValueType, Window]] = {
    account_pb2.BUDGET_WINDOW_DAY: Window.DAY,
    account_pb2.BUDGET_WINDOW_WEEK: Window.WEEK,
    account_pb2.BUDGET_WINDOW_MONTH: Window.MONTH,
    account_pb2.BUDGET_WINDOW_TOTAL: Window.TOTAL,
}
"""The window of each of the contract's values."""
_OF_WINDOWS: Final = {window: value for value, window in WINDOWS.items()}


def budget(of: Budget) -> account_pb2.Budget:
    """Return the message for a budget."""
    return account_pb2.Budget(
        window=_OF_WINDOWS[of.window],
        limit_nano_credits=of.limit,
        time_zone=of.time_zone,
        spent_nano_credits=of.spent,
        held_nano_credits=of.held,
        remaining_nano_credits=available(of),
        start_time=timestamp(of.start),
        reset_time=timestamp(of.end),
    )


def account(row: StoredRow, *, now: int, worth: CreditWorth | None = None) -> account_pb2.Account:
    """Return the message for an account.

    Args:
        row: Its row, of `key_rows.ACCOUNTS`.
        now: The time, for its budgets.
        worth: The worth of a credit, if the message has that of the balance.
    """
    return account_pb2.Account(
        name=row.name,
        balance_nano_credits=row.balance,
        held_nano_credits=row.held,
        available_nano_credits=row.balance - row.held,
        create_time=timestamp(row.created_at),
        suspend_time=timestamp(row.suspended_at),
        delete_time=timestamp(row.deleted_at),
        balance_worth=None if worth is None else worth.of(row.balance),
        budgets=map(budget, current(row.budgets, now)),
        parent=row.parent or "",
        payer=row.payer or "",
        payer_available_nano_credits=row.payer_available or 0,
    )


def api_key(row: StoredRow, *, now: int) -> account_pb2.ApiKey:
    """Return the message for a key, with its budgets at a time."""
    models = None if row.models is None else account_pb2.AllowedModels(names=row.models)
    return account_pb2.ApiKey(
        account=row.account,
        name=row.name,
        limits=account_pb2.KeyLimits(
            models=models,
            requests_per_minute=row.requests_per_minute,
            tokens_per_minute=row.tokens_per_minute,
            concurrency=row.concurrency,
            expire_time=timestamp(row.expires_at),
        ),
        revoke_time=timestamp(row.revoked_at),
        identity=row.identity or "",
        budgets=map(budget, current(row.budgets, now)),
        create_time=timestamp(row.created_at),
        suspend_time=timestamp(row.suspended_at),
        secret_prefix=row.secret_prefix or "",
        former_secret_expire_time=timestamp(row.former_until),
        last_use_time=timestamp(row.used_at),
    )


def entry(row: StoredRow, *, worth: CreditWorth | None = None) -> account_pb2.LedgerEntry:
    """Return the message for a ledger entry, with the worth of its amount if there is one."""
    return account_pb2.LedgerEntry(
        id=row.id,
        kind=KINDS[row.kind],
        amount_nano_credits=row.amount,
        create_time=timestamp(row.created_at),
        idempotency_id=row.idempotency_id or "",
        hold_id=row.hold_id or "",
        key_name=row.key_name or "",
        model=row.model or "",
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        partial=row.partial,
        estimated=row.estimated,
        price_time=timestamp(row.prices_from),
        amount_worth=None if worth is None else worth.of(row.amount),
    )


def audit_entry(row: StoredRow) -> account_pb2.AuditEntry:
    """Return the message for a recorded act."""
    return account_pb2.AuditEntry(
        id=row.id,
        create_time=timestamp(row.created_at),
        actor=row.actor,
        method=row.method,
        account=row.account,
        request_json=row.request,
    )


def usage(row: StoredRow, *, worth: CreditWorth | None = None) -> account_pb2.UsageTotal:
    """Return the message for a usage total, with the worth of its charge if there is one."""
    return account_pb2.UsageTotal(
        account=row.account,
        start_time=timestamp(row.start),
        key_name=row.key_name,
        model=row.model,
        requests=row.requests,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        charged_nano_credits=row.charged,
        charged_worth=None if worth is None else worth.of(row.charged),
    )


LIMITS: Final[Mapping[str, str]] = {
    "models": "models",
    "requests_per_minute": "requests_per_minute",
    "tokens_per_minute": "tokens_per_minute",
    "concurrency": "concurrency",
    "expire_time": "expires_at",
}
"""The column of each field of KeyLimits."""


def key_limits(message: account_pb2.KeyLimits) -> dict[str, Any]:
    """Return the limits that a valid message has, by their columns."""
    limits = {LIMITS[field.name]: value for field, value in message.ListFields()}
    if message.HasField("models"):
        limits["models"] = tuple(message.models.names)
    if message.HasField("expire_time"):
        limits["expires_at"] = nanoseconds(message.expire_time)
    return limits


def nanoseconds(instant: Timestamp | Duration) -> int:
    """Return a time (since the Unix epoch) or a duration in nanoseconds, or -1 if it is not valid.

    Source: google/protobuf/timestamp.proto, where nanos are from 0 to 999,999,999.
    """
    if not 0 <= instant.nanos < _SECOND:
        return -1
    return int(instant.seconds) * _SECOND + int(instant.nanos)


def timestamp(instant: int | None) -> Timestamp | None:
    """Return a time as a timestamp, or None for None."""
    if instant is None:
        return None
    seconds, nanos = divmod(instant, _SECOND)
    return Timestamp(seconds=seconds, nanos=nanos)

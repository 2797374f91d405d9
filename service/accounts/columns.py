"""The columns of the commands' tables: from messages of the contract to text."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chatcompletion.credit_amounts import to_text
from chatcompletion.v1 import account_pb2
from service.accounts.terminal import table


def _models(key: account_pb2.ApiKey) -> str:
    return ",".join(key.limits.models.names) if key.limits.HasField("models") else "all"


def _marks(entry: account_pb2.LedgerEntry) -> str:
    marks = [name for name in ("partial", "estimated") if getattr(entry, name)]
    return ",".join(marks) or entry.idempotency_id or "-"


Columns = Mapping[str, str | Callable[[Any], str]]
"""The columns of a table, each with the path of a field or a function that returns its text."""


def _budgets(of: account_pb2.Account | account_pb2.ApiKey) -> str:
    """Return what is spent and held of each budget, and its limit."""
    return (
        ",".join(
            f"{cell(budget, 'window')}:"
            f"{to_text(budget.spent_nano_credits + budget.held_nano_credits)}"
            f"/{to_text(budget.limit_nano_credits)}"
            for budget in of.budgets
        )
        or "-"
    )


ACCOUNT: Final[Columns] = {
    "account": "name",
    "balance": "balance_nano_credits",
    "held": "held_nano_credits",
    "available": "available_nano_credits",
    "created": "create_time",
    "suspended": "suspend_time",
    "parent": "parent",
    "budgets": _budgets,
}
BUDGET: Final[Columns] = {
    "window": "window",
    "limit": "limit_nano_credits",
    "spent": "spent_nano_credits",
    "held": "held_nano_credits",
    "remaining": "remaining_nano_credits",
    "time zone": "time_zone",
    "resets": "reset_time",
}
KEY: Final[Columns] = {
    "name": "name",
    "rpm": "limits.requests_per_minute",
    "tpm": "limits.tokens_per_minute",
    "concurrency": "limits.concurrency",
    "models": _models,
    "expires": "limits.expire_time",
    "revoked": "revoke_time",
    "created": "create_time",
    "suspended": "suspend_time",
    "used": "last_use_time",
    "secret": "secret_prefix",
    "identity": "identity",
    "budgets": _budgets,
}
ENTRY: Final[Columns] = {
    "id": "id",
    "created": "create_time",
    "kind": "kind",
    "amount": "amount_nano_credits",
    "key": "key_name",
    "model": "model",
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "marks": _marks,
}
ACT: Final[Columns] = {
    "id": "id",
    "created": "create_time",
    "actor": "actor",
    "method": "method",
    "account": "account",
    "request": "request_json",
}
USAGE: Final[Columns] = {
    "start": "start_time",
    "key": "key_name",
    "model": "model",
    "requests": "requests",
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "charged": "charged_nano_credits",
}

_WORTHS: Final[Mapping[str, str]] = {
    "Account": "balance_worth",
    "LedgerEntry": "amount_worth",
    "UsageTotal": "charged_worth",
}
"""The field of each message with the worth of its amount."""

_NUMBERS: Final = frozenset(
    {
        *("balance", "held", "available", "rpm", "tpm", "concurrency"),
        *("limit", "spent", "remaining"),
        *("id", "amount", "requests", "prompt", "completion", "charged"),
    }
)
"""The right-aligned columns."""


def rows_table(columns: Columns, rows: Iterable[Message]) -> str:
    """Return a table of messages, with a line for each.

    If the messages have the worth of an amount, its column has the name of the currency.
    """
    rows, numbers = [*rows], _NUMBERS
    worth = _WORTHS.get(rows[0].DESCRIPTOR.name, "") if rows else ""
    if worth and rows[0].HasField(worth):
        currency = getattr(rows[0], worth).currency_code
        columns, numbers = {**columns, currency: f"{worth}.amount"}, numbers | {currency}
    cells = [
        [shown(row) if callable(shown) else cell(row, shown) for shown in columns.values()]
        for row in rows
    ]
    return table([*columns], cells, numbers=numbers)


def cell(value: Any, path: str) -> str:
    """Return the text of a field: "-" if it is absent, a time in whole seconds in UTC."""
    for name in path.split("."):
        field = value.DESCRIPTOR.fields_by_name[name]
        if field.has_presence and not value.HasField(name):
            return "-"
        value = getattr(value, name)
    if isinstance(value, Timestamp):
        return f"{value.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"
    if path.endswith("_nano_credits"):
        return to_text(value)
    if field.enum_type:
        return str(field.enum_type.values_by_number[value].name).rpartition("_")[2].lower()
    return str(value) or "-"

"""Events as CloudEvents 1.0 in JSON, in structured mode.

    Outgoing -> {"specversion": "1.0", "id": …, "type": "chatcompletion.usage.v1", "data": {…}}

Each amount has two members: credits as decimal text, and nano-credits as an integer, which can
exceed the 53 bits of a JavaScript number.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from chatcompletion.credit_amounts import members
from service.ledger.outbox import Outgoing
from service.ledger.rows import EntryKind, EventKind

CONTENT_TYPE: Final = "application/cloudevents+json"

TYPES: Final[Mapping[EventKind, str]] = {
    EventKind.USAGE: "chatcompletion.usage.v1",
    EventKind.CREDIT_THRESHOLD: "chatcompletion.credit.threshold.v1",
    EventKind.BUDGET_THRESHOLD: "chatcompletion.budget.threshold.v1",
}
"""The type of each kind of event."""


def encode(event: Outgoing, source: str) -> bytes:
    """Return an event as JSON.

    Args:
        event: The event.
        source: The source of all events: a URI reference.
    """
    return _encode(
        {
            "specversion": "1.0",
            "id": event.event_id,
            "source": source,
            "type": TYPES[event.kind],
            "subject": event.account,
            "time": _time(event.created_at),
            "datacontenttype": "application/json",
            "data": _DATA[event.kind](event),
        }
    )


_encode: Final = msgspec.json.Encoder().encode


def _time(nanoseconds: int) -> str:
    """Return a time by RFC 3339, in UTC, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"


def _usage(event: Outgoing) -> dict[str, Any]:
    return {
        "account": event.account,
        "payer": event.payer,
        "key": event.key,
        "model": event.model,
        "hold_id": event.hold_id,
        "late": event.entry_kind is EntryKind.ADJUST,
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
        **members("charged", -event.amount),
        "partial": event.partial,
        "estimated": event.estimated,
    }


def _threshold(event: Outgoing) -> dict[str, Any]:
    whole, remaining = event.whole or 0, event.remaining or 0
    return {
        "account": event.account,
        "percent": event.percent,
        **members("credit", whole),
        **members("used", whole - remaining),
        **members("balance", remaining),
    }


def _budget(event: Outgoing) -> dict[str, Any]:
    whole, remaining = event.whole or 0, event.remaining or 0
    return {
        "account": event.account,
        "key": event.key or None,
        "window": event.window,
        "percent": event.percent,
        **members("limit", whole),
        **members("spent", whole - remaining),
    }


_DATA: Final[Mapping[EventKind, Callable[[Outgoing], dict[str, Any]]]] = {
    EventKind.USAGE: _usage,
    EventKind.CREDIT_THRESHOLD: _threshold,
    EventKind.BUDGET_THRESHOLD: _budget,
}

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from service.ledger.outbox import Outgoing
from service.ledger.rows import EntryKind, EventKind
from service.webhooks.cloud_events import CONTENT_TYPE, TYPES, encode

NOW = 1_793_491_200 * 10**9 + 123_456_789


def outgoing(kind: EventKind, **members: Any) -> Outgoing:
    usual: dict[str, Any] = {
        "id": 1,
        "event_id": "01980c1e2f003a5f8d7bd7a1c9f0a4b2",
        "account": "acme ü",
        "created_at": NOW,
        "attempts": 1,
        "hold_id": "01980c1e2f003a5f8d7bd7a1c9f0a4b2",
    }
    return Outgoing(kind=kind, **{**usual, **members})


USAGE = outgoing(
    EventKind.USAGE,
    entry_kind=EntryKind.SETTLE,
    amount=-(2**62),
    key="ci",
    payer="holding",
    model="default",
    prompt_tokens=120,
    completion_tokens=2000,
    partial=True,
)
THRESHOLD = outgoing(EventKind.CREDIT_THRESHOLD, percent=80, whole=10**10, remaining=2 * 10**9 - 1)

BUDGET = outgoing(
    EventKind.BUDGET_THRESHOLD, percent=100, whole=10, remaining=-2, window="month", key="ci"
)


def read(event: Outgoing) -> Any:
    """Read an event with the official SDK."""
    body = encode(event, "/billing")
    return from_http_event(HTTPMessage(headers={"content-type": CONTENT_TYPE}, body=body))


@pytest.mark.parametrize("event", [USAGE, THRESHOLD, BUDGET])
def test_the_official_sdk_accepts_every_kind_of_event(event: Outgoing) -> None:
    seen = read(event)
    assert seen.get_id() == event.event_id
    assert seen.get_source() == "/billing"
    assert seen.get_type() == TYPES[event.kind]
    assert seen.get_subject() == "acme ü"
    assert seen.get_time() == datetime(2026, 11, 1, 0, 0, 0, 123_456, tzinfo=UTC)
    assert seen.get_specversion() == "1.0"
    assert seen.get_datacontenttype() == "application/json"


def test_usage_has_the_charge_twice_and_exact() -> None:
    assert read(USAGE).get_data() == {
        "account": "acme ü",
        "payer": "holding",
        "key": "ci",
        "model": "default",
        "hold_id": "01980c1e2f003a5f8d7bd7a1c9f0a4b2",
        "late": False,
        "prompt_tokens": 120,
        "completion_tokens": 2000,
        "charged": "4611686018.427387904",
        "charged_nano_credits": 2**62,
        "partial": True,
        "estimated": False,
    }
    late = outgoing(EventKind.USAGE, entry_kind=EntryKind.ADJUST)
    assert read(late).get_data()["late"] is True


def test_a_threshold_has_the_whole_and_what_is_left() -> None:
    assert read(THRESHOLD).get_data() == {
        "account": "acme ü",
        "percent": 80,
        "credit": "10",
        "credit_nano_credits": 10**10,
        "used": "8.000000001",
        "used_nano_credits": 8 * 10**9 + 1,
        "balance": "1.999999999",
        "balance_nano_credits": 2 * 10**9 - 1,
    }


def test_a_budget_has_its_window_and_what_is_spent() -> None:
    assert read(BUDGET).get_data() == {
        "account": "acme ü",
        "key": "ci",
        "window": "month",
        "percent": 100,
        "limit": "0.00000001",
        "limit_nano_credits": 10,
        "spent": "0.000000012",
        "spent_nano_credits": 12,
    }
    of_account = outgoing(EventKind.BUDGET_THRESHOLD, window="total", whole=1, remaining=1)
    assert read(of_account).get_data()["key"] is None


def test_every_kind_has_a_type() -> None:
    assert TYPES.keys() == set(EventKind)
    assert json.loads(encode(USAGE, "s"))["type"] == "chatcompletion.usage.v1"

"""The commands `events list`, `events retry` and `events drop`, on the outbox."""

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from service.accounts import audit
from service.accounts.asking import user
from service.accounts.store_commands import Command
from service.accounts.terminal import Answer, CommandError, table
from service.ledger import outbox
from service.ledger.outbox import Outbox, Outgoing
from service.ledger.store import Store

_COLUMNS: Final = ("id", "kind", "account", "created", "attempts", "failure")


def _list(store: Store, asked: argparse.Namespace) -> Answer:
    found = Outbox(store).listed(dead=asked.dead, limit=asked.limit)
    events = [_document(event) for event in found]
    rows = [[str(event[column]) for column in _COLUMNS] for event in events]
    return Answer(document={"events": events}, text=table(_COLUMNS, rows, numbers=("attempts",)))


def _document(event: Outgoing) -> dict[str, Any]:
    return {
        "id": event.event_id,
        "kind": event.kind.name.lower(),
        "account": event.account,
        "created": _time(event.created_at),
        "attempts": event.attempts,
        "failure": event.failure or "-",
    }


def _time(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _retry(store: Store, asked: argparse.Namespace) -> Answer:
    act = _act("RetryEvents", asked)
    with audit.act(act), audit.writing(store) as connection:
        count = outbox.retry(connection, store.now(connection), asked.id)
        _found(count, asked.id)
    return Answer(document={"retried": count}, text=f"Sending again: {count}")


def _drop(store: Store, asked: argparse.Namespace) -> Answer:
    act = _act("DropEvents", asked)
    with audit.act(act), audit.writing(store) as connection:
        count = outbox.drop(connection, asked.id)
        _found(count, asked.id)
    return Answer(document={"dropped": count}, text=f"Deleted: {count}")


def _act(method: str, asked: argparse.Namespace) -> audit.Act:
    if asked.all == (asked.id is not None):
        raise CommandError("name the id of an event, or --all")
    request = {"all": True} if asked.id is None else {"id": asked.id}
    return audit.Act(actor=f"cli:{user()}", method=method, account="", request=json.dumps(request))


def _found(count: int, event_id: str | None) -> None:
    """Check that an event was found. Otherwise, nothing is recorded either."""
    if not count and event_id is not None:
        raise CommandError(f"there is no dead letter {event_id!r}")


COMMANDS: Final[Mapping[str, Command]] = {
    "events list": _list,
    "events retry": _retry,
    "events drop": _drop,
}

"""The outbox in a store, on both databases: leases, results, and what is left after a failure."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from service.accounts.directory import Directory
from service.ledger import budgets
from service.ledger import outbox as outboxes
from service.ledger.batches import LARGEST_BATCH
from service.ledger.budgets import Window
from service.ledger.migrations import migrate
from service.ledger.outbox import Closing, Outbox
from service.ledger.rows import EntryKind, EventKind, Grant, Place, Settle
from service.ledger.schema import api_keys, events
from service.ledger.store import Store, StoreError

SECOND = 10**9
DAY = 86_400 * SECOND


@dataclass
class Box:
    """A store with events, an account and a key."""

    store: Store
    outbox: Outbox = field(init=False)
    account: int = field(init=False)
    key: int = field(init=False)

    def __post_init__(self) -> None:
        migrate(self.store)
        directory = Directory(self.store)
        self.outbox = Outbox(self.store)
        self.account = directory.create_account("acme").id
        self.key = directory.create_key("acme", "ci")[0].id
        grant = Grant(account_id=self.account, amount=10**12, idempotency_id="opening")
        self.store.apply([grant])

    def charge(self, *names: str, amount: int = 7) -> None:
        """Charge calls with these holds, each of which has an event."""
        for start in range(0, len(names), LARGEST_BATCH):
            some = names[start : start + LARGEST_BATCH]
            ids: list[dict[str, Any]] = [
                {"hold_id": name, "account_id": self.account, "key_id": self.key} for name in some
            ]
            self.store.apply(
                [
                    Place(**of, amount=amount, tokens=0, model="m", owner="o", lease=DAY)
                    for of in ids
                ]
            )
            self.store.apply(
                [Settle(**of, charge=amount, prompt_tokens=1, completion_tokens=2) for of in ids]
            )

    def claimed(self, most: int = 100, lease: int = DAY) -> list[str]:
        return [event.event_id for event in self.outbox.claim(most=most, lease=lease)]

    def change(self, **values: Any) -> None:
        with self.store.writing() as connection:
            connection.execute(sa.update(events).values(**values))

    def ids(self) -> list[str]:
        with self.store.reading() as connection:
            return list(connection.execute(sa.select(events.c.event_id)).scalars())


@pytest.fixture
def box(database: str) -> Iterator[Box]:
    store = Store(database, thresholds=(50,))
    yield Box(store)
    store.close()


def test_a_charge_and_its_event_are_one_transaction(box: Box, database: str) -> None:
    box.charge("a")
    (event,) = box.outbox.claim(most=10, lease=DAY)
    assert (event.event_id, event.kind, event.account) == ("a", EventKind.USAGE, "acme")
    assert (event.amount, event.key, event.model, event.payer) == (-7, "ci", "m", "acme")
    assert (event.prompt_tokens, event.completion_tokens) == (1, 2)
    assert (event.entry_kind, event.attempts) == (EntryKind.SETTLE, 1)
    silent = Store(database)
    of: dict[str, Any] = {"hold_id": "b", "account_id": box.account, "key_id": box.key}
    silent.apply([Place(**of, amount=1, tokens=0, model="m", owner="o", lease=DAY)])
    silent.apply([Settle(**of, charge=1, prompt_tokens=1, completion_tokens=2)])
    silent.close()
    assert box.ids() == ["a"]


def test_an_event_that_exists_already_does_not_stop_its_charge(box: Box) -> None:
    box.charge("a")
    box.change(event_id="b")
    box.charge("b")
    assert box.ids() == ["b"]
    with box.store.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(events)).scalar() == 1


def test_thresholds_are_events_too(box: Box) -> None:
    box.charge("a", amount=5 * 10**11)
    usage, threshold = box.outbox.claim(most=10, lease=DAY)
    assert (usage.event_id, threshold.event_id) == ("a", "credit-50-a")
    assert (threshold.percent, threshold.whole, threshold.remaining) == (50, 10**12, 5 * 10**11)


def test_thresholds_of_budgets_name_the_key_and_the_window(box: Box) -> None:
    with box.store.writing() as connection:
        made = budgets.put(None, Window.TOTAL, 100, "UTC", box.store.now(connection))
        values = {"budgets": msgspec.to_builtins(made)}
        connection.execute(sa.update(api_keys).where(api_keys.c.id == box.key).values(**values))
    box.charge("a", amount=50)
    usage, threshold = box.outbox.claim(most=10, lease=DAY)
    assert (usage.event_id, usage.window) == ("a", "")
    assert threshold.event_id == f"budget-50-total-key-{box.key}-a"
    assert (threshold.account, threshold.key, threshold.window) == ("acme", "ci", "total")
    assert (threshold.percent, threshold.whole, threshold.remaining) == (50, 100, 50)


def test_a_claim_is_a_lease(box: Box) -> None:
    box.charge("a", "b", "c")
    assert box.claimed(most=2) == ["a", "b"]
    assert box.claimed() == ["c"]
    assert box.claimed() == []
    box.change(due_at=0)
    assert box.claimed(lease=0) == ["a", "b", "c"]
    assert [event.attempts for event in box.outbox.claim(most=9, lease=DAY)] == [3, 3, 3]


def test_several_processes_claim_each_event_once(box: Box, database: str) -> None:
    names = [f"{number:04}" for number in range(300)]
    box.charge(*names)
    stores = [Store(database) for _ in range(4)]
    start = threading.Barrier(len(stores))

    def claim_all(store: Store) -> list[str]:
        found: list[str] = []
        start.wait()
        while some := Outbox(store).claim(most=10, lease=DAY):
            found += [event.event_id for event in some]
        return found

    with ThreadPoolExecutor(len(stores)) as threads:
        each = list(threads.map(claim_all, stores))
    for store in stores:
        store.close()
    # Rows that another transaction has locked are skipped: the last rounds can miss some.
    rest = box.claimed(most=300)
    assert sorted([name for found in each for name in found] + rest) == names


def test_results_are_recorded(box: Box) -> None:
    box.charge("sent", "later", "dead", "unsent")
    by_id = {event.event_id: event for event in box.outbox.claim(most=10, lease=DAY)}
    ids: dict[str, dict[str, Any]] = {
        name: {"id": event.id, "attempts": 1} for name, event in by_id.items()
    }
    box.outbox.close(
        [
            Closing(**ids["sent"]),
            Closing(**ids["later"], failure="HTTP 500", again_in=DAY),
            Closing(**ids["dead"], failure="HTTP 410"),
            Closing(**ids["unsent"], unsent=True),
        ]
    )
    assert sorted(box.ids()) == ["dead", "later", "unsent"]
    assert [(each.event_id, each.failure) for each in box.outbox.listed(dead=True)] == [
        ("dead", "HTTP 410")
    ]
    pending = [(each.event_id, each.attempts) for each in box.outbox.listed(dead=False)]
    assert pending == [("later", 1), ("unsent", 0)]
    assert box.claimed() == ["unsent"]
    waiting = box.outbox.waiting()
    assert (waiting.pending, waiting.dead) == (2, 1)
    assert waiting.oldest == by_id["later"].created_at


def test_the_result_of_an_old_claim_counts_only_if_it_delivered(box: Box) -> None:
    box.charge("a", "b")
    first = box.outbox.claim(most=10, lease=0)
    second = box.outbox.claim(most=10, lease=DAY)
    assert [event.attempts for event in second] == [2, 2]
    stale, delivered = (Closing(id=event.id, attempts=1) for event in first)
    box.outbox.close([Closing(id=stale.id, attempts=1, failure="timeout"), delivered])
    assert box.ids() == ["a"]
    assert box.outbox.listed(dead=True) == []


def test_old_events_die_and_old_dead_letters_go(box: Box) -> None:
    box.charge("old", "leased", "retried", "new")
    with box.store.writing() as connection:
        now = box.store.now(connection)
        for name, values in {
            "old": {"created_at": now - 2 * DAY},
            "leased": {"created_at": now - 2 * DAY, "due_at": now + DAY},
            "retried": {"created_at": now - 2 * DAY, "retried_at": now},
        }.items():
            change = sa.update(events).where(events.c.event_id == name).values(**values)
            connection.execute(change)
    assert box.outbox.tidy(longest=DAY) == 1
    assert box.outbox.tidy(longest=DAY) == 0
    (dead,) = box.outbox.listed(dead=True)
    assert (dead.event_id, dead.failure) == ("old", "too old")
    with box.store.writing() as connection:
        past = {"dead_at": box.store.now(connection) - outboxes.KEPT - 1}
        connection.execute(sa.update(events).where(events.c.dead_at.is_not(None)).values(**past))
    assert box.outbox.tidy(longest=DAY) == 0
    assert sorted(box.ids()) == ["leased", "new", "retried"]


def test_dead_letters_are_sent_again_or_dropped(box: Box) -> None:
    box.charge("a", "b", "c", "d")
    claimed = box.outbox.claim(most=3, lease=DAY)
    box.outbox.close(Closing(id=e.id, attempts=1, failure="HTTP 410") for e in claimed)
    with box.store.writing() as connection:
        now = box.store.now(connection)
        assert outboxes.retry(connection, now, "d") == 0  # not dead
        assert outboxes.retry(connection, now, "a") == 1
        assert outboxes.drop(connection, "d") == 0
        assert outboxes.drop(connection, "b") == 1
    again = {event.event_id: event for event in box.outbox.claim(most=10, lease=DAY)}
    assert again.keys() == {"a", "d"}
    assert again["a"].attempts == 1
    assert again["a"].created_at == claimed[0].created_at
    assert again["a"].since > claimed[0].since
    with box.store.writing() as connection:
        assert outboxes.retry(connection, now, None) == 1
        assert outboxes.drop(connection, None) == 0


def test_a_store_that_is_away_loses_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.charge("a")
    (event,) = box.outbox.claim(most=1, lease=0)
    with monkeypatch.context() as away:
        away.setattr(box.store, "writing", _away)
        with pytest.raises(StoreError):
            box.outbox.close([Closing(id=event.id, attempts=1)])
    assert box.claimed() == ["a"]


def _away() -> Any:
    raise StoreError("away")

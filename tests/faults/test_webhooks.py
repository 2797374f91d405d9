"""The delivery of events to receivers that fail, by one process and by several."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook

from service.accounts.directory import Directory
from service.ledger.batches import Batches
from service.ledger.migrations import migrate
from service.ledger.outbox import Outbox
from service.ledger.rows import Grant, Place, Settle
from service.ledger.store import Store, StoreError
from service.upstream.client import transport
from service.webhook_metrics import WebhookMetrics
from service.webhooks import delivery as deliveries
from service.webhooks import signatures
from service.webhooks.delivery import Delivery
from service.webhooks.endpoint import Endpoint
from service.webhooks.schedule import SECOND
from tests.support import canaries
from tests.support.accounts_stack import accounts_stack
from tests.support.priced_models import CREDIT
from tests.support.waiting import until
from tests.support.webhook_receiver import Receiver, Reply, receiver

DAY = 86_400 * SECOND
SECRETS = [
    canaries.secret("whsec_" + base64.b64encode(letter * 32).decode()) for letter in (b"n", b"o")
]
TOKEN = canaries.secret("Bearer token-of-the-receiver-4f1c")


@dataclass
class House:
    """A store with an account and a key, whose charges have events."""

    store: Store
    account: int
    key: int

    @classmethod
    def of(cls, url: str) -> "House":
        store = Store(url, thresholds=(50,))
        migrate(store)
        directory = Directory(store)
        account = directory.create_account("acme").id
        key = directory.create_key("acme", "ci")[0].id
        store.apply([Grant(account_id=account, amount=10**12, idempotency_id="opening")])
        return cls(store, account, key)

    def charge(self, *names: str) -> None:
        of: dict[str, Any] = {"account_id": self.account, "key_id": self.key}
        for name in names:
            place = Place(hold_id=name, **of, amount=7, tokens=0, model="m", owner="o", lease=DAY)
            settle = Settle(hold_id=name, **of, charge=7, prompt_tokens=1, completion_tokens=2)
            self.store.apply([place])
            self.store.apply([settle])

    @property
    def waiting(self) -> list[tuple[str, int, str | None]]:
        return [(e.event_id, e.attempts, e.failure) for e in Outbox(self.store).listed(dead=False)]

    @property
    def dead(self) -> list[tuple[str, int, str | None]]:
        return [(e.event_id, e.attempts, e.failure) for e in Outbox(self.store).listed(dead=True)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House.of(f"sqlite:///{tmp_path}/db")
    yield made
    made.store.close()


@dataclass
class Sender:
    """A process that sends events, without its task: a test does the rounds."""

    delivery: Delivery
    batches: Batches
    registry: CollectorRegistry

    def count(self, result: str) -> float:
        labels = {"result": result}
        return self.registry.get_sample_value("chat_events_attempts_total", labels) or 0.0


@asynccontextmanager
async def sender(
    house: House, hooks: Receiver, *, within: float = 5.0, random: float = 0.0, longest: int = DAY
) -> AsyncIterator[Sender]:
    batches, registry = Batches(house.store), CollectorRegistry()
    connections = transport(max_connections=16)
    delivery = Delivery(
        Outbox(house.store),
        batches,
        Endpoint(connections, hooks.url, authorization=TOKEN, within=within),
        WebhookMetrics(registry),
        source="/tests",
        keys=[signatures.key(secret) for secret in SECRETS],
        within=within,
        longest=longest,
        now=lambda: _now(house.store),
        random=lambda: random,
    )
    yield Sender(delivery, batches, registry)
    await connections.aclose()
    await batches.close()


def _now(store: Store) -> int:
    with store.reading() as connection:
        return store.now(connection)


async def test_an_event_arrives_signed_and_once(house: House) -> None:
    house.charge("a")
    async with receiver() as hooks, sender(house, hooks) as one:
        await one.delivery.round()
        await one.delivery.round()
        (hook,) = hooks.hooks
    assert hook.headers["content-type"] == "application/cloudevents+json"
    assert hook.headers["authorization"] == TOKEN
    for secret in SECRETS:
        assert Webhook(secret).verify(hook.body, hook.headers)["data"]["charged"] == "0.000000007"
    event = from_http_event(HTTPMessage(headers=hook.headers, body=hook.body))
    assert event.get_id() == hook.headers["webhook-id"] == "a"
    assert (house.waiting, house.dead, one.count("delivered")) == ([], [], 1)


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (500, "HTTP 500"),
        (404, "HTTP 404"),
        (302, "HTTP 302"),
        ("hang", "timeout"),
        ("close", "closed"),
        ("reset", "reset or truncated"),
    ],
)
async def test_an_event_that_fails_is_sent_again_with_the_same_id(
    house: House, reply: Reply, failure: str
) -> None:
    house.charge("a")
    async with receiver() as hooks, sender(house, hooks, within=0.3) as one:
        hooks.replies = [reply]
        await one.delivery.round()
        ((name, attempts, why),) = house.waiting
        assert (name, attempts) == ("a", 1)
        assert why in failure.split(" or ")
        await one.delivery.round()
        assert hooks.ids == ["a", "a"]
        assert hooks.hooks[0].body == hooks.hooks[1].body
    assert house.waiting == []
    assert (one.count("failed"), one.count("delivered")) == (1, 1)


async def test_a_body_without_an_end_is_not_read_to_its_end(house: House) -> None:
    house.charge("a")
    async with receiver() as hooks, sender(house, hooks) as one:
        hooks.replies = ["endless"]
        await one.delivery.round()
    assert (house.waiting, one.count("delivered")) == ([], 1)


async def test_a_receiver_that_is_down_gets_one_event_at_a_time(house: House) -> None:
    house.charge("a", "b", "c")
    async with receiver() as hooks, sender(house, hooks) as one:
        port, hooks.port = hooks.port, 1
        broken = sender(house, hooks)
        async with broken as other:
            pauses = [await other.delivery.round() for _ in range(3)]
            assert pauses == sorted(pauses)
            assert pauses[0] >= 1.0
            assert sum(attempts for _, attempts, _ in house.waiting) == 3
        hooks.port = port
        await one.delivery.round()
        assert sorted(hooks.ids) == ["a", "b", "c"]
    assert house.waiting == []


async def test_the_receiver_that_is_gone_makes_dead_letters(house: House) -> None:
    house.charge("a", "b")
    async with receiver() as hooks, sender(house, hooks) as one:
        hooks.usual = 410
        for _ in range(2):
            await one.delivery.round()
        assert house.dead == [("a", 1, "HTTP 410"), ("b", 1, "HTTP 410")]
        await one.delivery.round()
        assert hooks.ids == ["a", "b"]
    assert one.count("dead") == 2


async def test_an_event_is_dead_after_its_time(house: House) -> None:
    house.charge("a")
    async with receiver() as hooks, sender(house, hooks, longest=1) as one:
        hooks.usual = 503
        await one.delivery.round()
    assert [event_id for event_id, _, _ in house.dead] == ["a"]


async def test_one_bad_event_does_not_stop_the_next(house: House) -> None:
    house.charge("a", "b", "c")
    async with receiver() as hooks, sender(house, hooks, random=1.0) as one:
        hooks.replies = [422]
        await one.delivery.round()
        await one.delivery.round()
        assert hooks.ids == ["a", "b", "c"]
    assert house.waiting == [("a", 1, "HTTP 422")]


async def test_two_processes_send_each_event_once(house: House) -> None:
    names = [f"{number:03}" for number in range(200)]
    house.charge(*names)
    async with receiver() as hooks, sender(house, hooks) as one, sender(house, hooks) as two:
        while house.waiting:
            await asyncio.gather(one.delivery.round(), two.delivery.round())
        assert sorted(hooks.ids) == names
    assert one.count("delivered") + two.count("delivered") == len(names)


async def test_a_store_that_goes_away_after_the_sending_does_not_send_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.charge("a")

    def away(*_: object) -> None:
        raise StoreError("away")

    async with receiver() as hooks, sender(house, hooks) as one:
        with monkeypatch.context() as gone:
            gone.setattr(one.delivery._outbox, "close", away)
            for _ in range(3):
                with pytest.raises(StoreError):
                    await one.delivery.round()
        await one.delivery.round()
        assert hooks.ids == ["a"]
    assert house.waiting == []


async def test_a_process_that_dies_after_the_sending_sends_again_with_the_same_id(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.charge("a")
    monkeypatch.setattr(deliveries, "ROUND_WITHIN", -100.0)  # the lease is over at once
    async with receiver() as hooks, sender(house, hooks) as one, sender(house, hooks) as two:
        claimed = Outbox(house.store).claim(most=10, lease=0)
        await one.delivery._send(claimed[0])
        monkeypatch.undo()
        await two.delivery.round()
        assert hooks.ids == ["a", "a"]
    assert house.waiting == []


async def test_a_stop_releases_what_was_not_sent(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "GRACE", 0.05)
    house.charge("a", "b")
    async with receiver() as hooks, sender(house, hooks) as one:
        hooks.usual = "hang"
        task = asyncio.create_task(one.delivery.run())
        await until(lambda: hooks.ids == ["a"], "nothing was sent")
        await one.delivery.stop(task)
    assert [(name, attempts) for name, attempts, _ in house.waiting] == [("a", 0), ("b", 0)]
    async with receiver() as hooks, sender(house, hooks) as two:
        await two.delivery.round()
        assert hooks.ids == ["a", "b"]


async def test_calls_of_a_service_are_reported(database: str) -> None:
    async with (
        receiver() as hooks,
        accounts_stack(
            database=database,
            events_url=hooks.url,
            events_secrets=tuple(map(signatures.key, SECRETS)),
            events_authorization=TOKEN,
        ) as stack,
    ):
        hooks.replies = [500]
        team = stack.books.team(credit=CREDIT)
        for _ in range(3):
            assert (await stack.ask("grpc", team.key, "default")).status == 200
        await stack.rests()
        await until(lambda: len(set(hooks.ids)) == 3, "an event did not arrive")
        charges = [charge.amount for charge in stack.books.charges(team)]
        sent = {
            hook.event["id"]: hook.event["data"]["charged_nano_credits"] for hook in hooks.hooks
        }
        assert sorted(sent.values()) == sorted(charges)
        assert stack.service.metric("chat_events_attempts_total", result="failed") == 1
        names = {hook.event["subject"] for hook in hooks.hooks}
        assert names == {team.name}

"""The store is away, and comes back.

new calls        503 STORE_UNAVAILABLE, soon, and never 401
running calls    end as usual; what they cost waits in the journal, and is applied once
readiness        NOT_SERVING meanwhile
"""

import asyncio
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import sqlalchemy as sa
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.accounts.rows import Operation, Outcome
from service.accounts.store import Store, StoreError
from service.server import LIVENESS, READINESS
from service.simulator import SimulatorServer
from tests.e2e.accounts_stack import (
    DOORS,
    AccountsStack,
    Answer,
    Books,
    Charge,
    DoorName,
    Team,
    accounts_stack,
    ask_grpc,
    books,
    cost,
    document,
    journal_directory,
    priced,
    service_process,
    url,
)
from tests.e2e.running import PATIENCE, Process, simulator, until

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING

MODELS: Final = {
    "default": priced(),
    "slow": priced(upstream_model="sim:tokens=8,itd=0.02"),
    "hanging": priced(upstream_model="sim-fault:hang-mid-stream=5,tokens=8"),
}
FORMS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


class FaultyStore(Store):
    """A store that can be away, or slow."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.away = False
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        self._check()
        return super().apply(operations)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        self._check()
        with super().reading() as connection:
            yield connection

    def _check(self) -> None:
        if not self.gate.is_set():
            self.waiting.set()
            self.gate.wait(PATIENCE)
        if self.away:
            raise StoreError("the store is away")


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> list[FaultyStore]:
    """The stores of the services that the test starts; their clocks are quick."""
    made: list[FaultyStore] = []

    def make(url: str) -> FaultyStore:
        made.append(FaultyStore(url))
        return made[-1]

    monkeypatch.setattr("service.server.Store", make)
    monkeypatch.setattr("service.accounts.housekeeping.INTERVAL", 0.02)
    return made


@pytest.fixture
def quick_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite waits less long for a lock, and the store is looked after more often."""
    monkeypatch.setattr("service.accounts.store.BUSY_TIMEOUT", 0.1)
    monkeypatch.setattr("service.accounts.housekeeping.INTERVAL", 0.02)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the writer's lock of the store, as another process may."""
    with closing(
        sqlite3.connect(directory / "accounts.sqlite3", isolation_level=None, timeout=PATIENCE)
    ) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


async def health(channel: grpc.aio.Channel, status: int, name: str = "") -> None:
    """Wait until the health has this status."""
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its types have no methods
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
    async for response in watch:
        if response.status == status:
            break
    watch.cancel()


async def is_ready(channel: grpc.aio.Channel, status: int) -> None:
    """Wait until readiness is this, and check that the process counts as alive."""
    for name in READINESS:
        await health(channel, status, name)
    await health(channel, SERVING, LIVENESS)


def journal(directory: Path) -> bytes:
    """Return what waits in the journal."""
    found = b""
    for path in journal_directory(directory).glob("*"):
        with suppress(FileNotFoundError):  # a file is removed once all of it is in the store
            found += path.read_bytes()
    return found


@asynccontextmanager
async def streaming(
    channel: grpc.aio.Channel, team: Team, model: str, pieces: int
) -> AsyncIterator[asyncio.Task[Answer]]:
    """Begin a stream, of which some pieces have come."""
    come = asyncio.Event()

    def watch(count: int) -> None:
        if count >= pieces:
            come.set()

    call = asyncio.create_task(
        ask_grpc(channel, team.key, document(model), streamed=True, watch=watch)
    )
    async with asyncio.timeout(PATIENCE):
        await come.wait()
    try:
        yield call
    finally:
        call.cancel()
        await asyncio.wait((call,))


def assert_unavailable(answer: Answer) -> None:
    assert (answer.status, answer.code) == (503, "store_unavailable")
    assert answer.retryable is True
    assert answer.retry_after_ms == 1000


# -------------------------------------------------------------------------------------- new calls


@FORMS
@pytest.mark.parametrize("door", DOORS)
async def test_new_calls_are_told_so_and_never_that_their_key_is_wrong(
    stores: list[FaultyStore], door: DoorName, streamed: bool
) -> None:
    async with accounts_stack(MODELS) as stack:
        known, unseen = stack.books.team(), stack.books.team()
        assert (await stack.ask(door, known.key, "default", streamed=streamed)).code == ""
        await stack.service.rests()
        stores[0].away = True
        await is_ready(stack.channel, NOT_SERVING)
        for key in (known.key, unseen.key, "sk-live-that-nobody-has"):
            assert_unavailable(await stack.ask(door, key, "default", streamed=streamed))
        stores[0].away = False
        await is_ready(stack.channel, SERVING)
        for key in (known.key, unseen.key):
            assert (await stack.ask(door, key, "default", streamed=streamed)).code == ""
        wrong = await stack.ask(door, "sk-live-that-nobody-has", "default", streamed=streamed)
        await stack.service.rests()

        assert wrong.code == "invalid_api_key"
        assert len(stack.upstream.records) == 3
        assert len(stack.books.charges(known)) == 2
        assert len(stack.books.charges(unseen)) == 1
        await until(lambda: journal(stack.directory) == b"")
        stack.books.nothing_is_open()


@FORMS
@pytest.mark.parametrize("door", DOORS)
async def test_a_lock_of_another_process_is_an_absence(
    quick_locks: None, door: DoorName, streamed: bool
) -> None:
    async with accounts_stack(MODELS) as stack:
        known, unseen = stack.books.team(), stack.books.team()
        assert (await stack.ask(door, known.key, "default", streamed=streamed)).code == ""
        await stack.service.rests()
        with locked(stack.directory):
            await is_ready(stack.channel, NOT_SERVING)
            for team in (known, unseen):
                assert_unavailable(await stack.ask(door, team.key, "default", streamed=streamed))
        await is_ready(stack.channel, SERVING)
        assert (await stack.ask(door, unseen.key, "default", streamed=streamed)).code == ""
        await stack.service.rests()
        await until(lambda: journal(stack.directory) == b"")
        stack.books.nothing_is_open()


@FORMS
async def test_a_store_that_does_not_answer_is_not_waited_for(
    stores: list[FaultyStore], monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr("service.admission.PATIENCE", 0.1)
    monkeypatch.setattr("service.accounts.housekeeping.PATIENCE", 0.1)
    async with accounts_stack(MODELS) as stack:
        known, unseen = stack.books.team(), stack.books.team()
        assert (await stack.ask("grpc", known.key, "default", streamed=streamed)).code == ""
        await stack.service.rests()
        stores[0].gate.clear()
        try:
            answers = await asyncio.gather(
                *(
                    stack.ask("grpc", team.key, "default", streamed=streamed)
                    for team in (known, unseen)
                )
            )
            await is_ready(stack.channel, NOT_SERVING)
        finally:
            stores[0].gate.set()
        await is_ready(stack.channel, SERVING)

        for answer in answers:
            assert_unavailable(answer)
        # The place of the first came too late: it is placed, and then released.
        await until(lambda: len(stack.books.holds(known)) == 2)
        await until(lambda: stack.books.held(known) == 0)
        await until(lambda: journal(stack.directory) == b"")
        assert len(stack.books.charges(known)) == 1
        stack.books.nothing_is_open()


async def test_who_leaves_while_the_store_does_not_answer_holds_nothing(
    stores: list[FaultyStore],
) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team()
        assert (await stack.ask("grpc", team.key, "default")).code == ""
        stores[0].gate.clear()
        try:
            await asyncio.to_thread(stores[0].waiting.wait, PATIENCE)
            call = asyncio.create_task(stack.ask("grpc", team.key, "default"))
            await until(lambda: stack.service.calls_in_flight == 1)
            call.cancel()
            await asyncio.wait((call,))
            await stack.service.rests()
        finally:
            stores[0].gate.set()
        await is_ready(stack.channel, SERVING)
        assert (await stack.ask("grpc", team.key, "default")).code == ""
        await stack.service.rests()

        await until(lambda: stack.books.held(team) == 0)
        assert len(stack.upstream.records) == 2
        stack.books.nothing_is_open()


# --------------------------------------------------------------------------------- running calls


async def test_running_streams_end_as_usual_and_are_charged_once(quick_locks: None) -> None:
    async with accounts_stack(MODELS) as stack:
        finishing, leaving = stack.books.team(), stack.books.team()
        async with (
            streaming(stack.channel, finishing, "slow", 1) as finishes,
            streaming(stack.channel, leaving, "hanging", 4) as leaves,
        ):
            with locked(stack.directory):
                leaves.cancel()
                answer = await finishes
                await stack.service.rests()
                kept = journal(stack.directory)
                assert stack.books.charges(finishing) == []
                await is_ready(stack.channel, NOT_SERVING)
        await is_ready(stack.channel, SERVING)
        await until(lambda: journal(stack.directory) == b"")

        assert (answer.code, answer.pieces) == ("", 8)
        assert kept.count(b"\n") == 2
        for secret in (finishing.key, leaving.key, "Hello"):
            assert secret.encode() not in kept
        assert stack.books.charges(finishing) == [Charge(amount=cost(1, 8), prompt=1, completion=8)]
        assert [charge.completion for charge in stack.books.charges(leaving)] == [4]
        stack.books.nothing_is_open()


async def test_what_a_replay_cannot_take_is_counted(
    quick_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.admission.LEASE_BEYOND_DEADLINE", -PATIENCE)
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team()
        # Its lease ends at once, so that its settlement finds it expired and the credit spent.
        async with streaming(stack.channel, team, "slow", 1) as finishes:
            await until(lambda: stack.books.held(team) == 0)
            stack.books.grant(team.account_id, -stack.books.balance(team))
            with locked(stack.directory):
                await finishes
                await stack.service.rests()
        await until(lambda: journal(stack.directory) == b"")

        assert [charge.amount for charge in stack.books.charges(team)] == [0]
        assert stack.service.metric("chat_usage_above_hold_nano_credits_total") == cost(1, 8)
        stack.books.nothing_is_open()


# ------------------------------------------------------------------------- processes that end


@asynccontextmanager
async def beginning(directory: Path) -> AsyncIterator[tuple[SimulatorServer, Books, Team]]:
    """Run an upstream, and make a store with a team in it by starting a service once."""
    async with simulator() as upstream:
        async with service_process(directory, upstream, MODELS) as (service, _):
            await end(service)
        with books(url(directory)) as opened:
            yield upstream, opened, opened.team()


async def end(service: Process) -> None:
    """Have a process drain, and check that it did."""
    service.send(signal.SIGTERM)
    assert await service.exit_status() == 0


def partial(opened: Books, team: Team) -> list[tuple[int, bool]]:
    return [(charge.completion, charge.partial) for charge in opened.charges(team)]


async def test_a_settlement_in_the_journal_survives_sigkill(tmp_path: Path) -> None:
    async with beginning(tmp_path) as (upstream, opened, team):
        async with (
            service_process(tmp_path, upstream, MODELS) as (service, client),
            streaming(client.channel, team, "hanging", 4) as call,
        ):
            with locked(tmp_path):
                call.cancel()
                # Well within this deadline, with the clocks as they are in production.
                assert_unavailable(
                    await ask_grpc(
                        client.channel, team.key, document("default"), streamed=False, deadline=10
                    )
                )
                await until(lambda: journal(tmp_path).count(b"settle") == 1)
                service.send(signal.SIGKILL)
                assert await service.exit_status() == -signal.SIGKILL
        assert opened.charges(team) == []
        assert opened.held(team) > 0
        for _ in range(2):
            async with service_process(tmp_path, upstream, MODELS) as (service, _):
                await until(lambda: journal(tmp_path) == b"")
                await end(service)
            assert partial(opened, team) == [(4, True)]
            opened.nothing_is_open()
        assert list(journal_directory(tmp_path).iterdir()) == []


async def test_a_drain_settles_what_it_cuts(tmp_path: Path) -> None:
    async with beginning(tmp_path) as (upstream, opened, team):
        async with (
            service_process(tmp_path, upstream, MODELS) as (service, client),
            streaming(client.channel, team, "hanging", 4) as first,
            streaming(client.channel, team, "hanging", 4) as second,
            streaming(client.channel, team, "hanging", 4) as third,
        ):
            await end(service)
            answers = [await first, await second, await third]
        assert [answer.code for answer in answers] == ["draining"] * 3
        assert partial(opened, team) == [(4, True)] * 3
        assert list(journal_directory(tmp_path).iterdir()) == []
        opened.nothing_is_open()


async def test_a_drain_without_the_store_keeps_what_it_cuts(tmp_path: Path) -> None:
    async with beginning(tmp_path) as (upstream, opened, team):
        async with (
            service_process(tmp_path, upstream, MODELS) as (service, client),
            streaming(client.channel, team, "hanging", 4) as call,
        ):
            with locked(tmp_path):
                await end(service)
                answer = await call
        assert answer.code == "draining"
        assert opened.charges(team) == []
        assert journal(tmp_path).count(b"\n") == 1
        async with service_process(tmp_path, upstream, MODELS) as (service, _):
            await until(lambda: journal(tmp_path) == b"")
            await end(service)
        assert partial(opened, team) == [(4, True)]
        assert list(journal_directory(tmp_path).iterdir()) == []
        opened.nothing_is_open()


async def test_the_drain_of_a_service_in_this_process_settles(stores: list[FaultyStore]) -> None:
    stack: AccountsStack
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team()
        async with streaming(stack.channel, team, "hanging", 4) as call:
            await stack.service.server.stop()
            answer = await call
        assert answer.code == "draining"
        assert partial(stack.books, team) == [(4, True)]
        assert journal(stack.directory) == b""
        stack.books.nothing_is_open()

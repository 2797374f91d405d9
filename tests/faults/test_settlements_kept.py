"""No settlement is dropped if the store or the disk fails, and no such call succeeds.

store and disk fail together    STORE_UNAVAILABLE, not retryable; in memory until one is back
the store is another one        unknown settlements are rejected, and can be applied later
the store freezes               look-ups of keys end in time, and so does the process
"""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from service.ledger import journal as journal_module
from service.ledger.migrations import migrate
from service.ledger.store import Store, Timeouts
from tests.support.accounts_stack import (
    AccountsStack,
    accounts_stack,
    journal_content,
    journal_directory,
    service_process,
)
from tests.support.asking import DOORS, Answer, DoorName, ask_grpc, document
from tests.support.books import Charge, Team, books
from tests.support.grpc_client import Client
from tests.support.outages import FORMS, MODELS, Outage, outage, outages
from tests.support.priced_models import cost
from tests.support.running_service import simulator
from tests.support.waiting import PATIENCE, until

__all__ = ["outage"]


@pytest.fixture
def quick_clocks(monkeypatch: pytest.MonkeyPatch) -> Timeouts:
    """Shorten the timeouts and the housekeeping interval of services in this process."""
    monkeypatch.setattr("service.ledger.housekeeping.INTERVAL", 0.02)
    monkeypatch.setattr("service.ledger.housekeeping.PATIENCE", 1.0)
    monkeypatch.setattr("service.open_accounts.PATIENCE", 1.0)
    # Long enough that a working store does not count as away on a busy machine.
    return Timeouts(busy=0.25)


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make all writes to journals of this process fail for the block."""

    def full(file: int, lines: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_append", full)
        yield


@asynccontextmanager
async def running_call(
    stack: AccountsStack, door: DoorName, team: Team, *, streamed: bool
) -> AsyncIterator["asyncio.Task[Answer]"]:
    """Make a call that is admitted and continues for a while."""
    call = asyncio.create_task(stack.ask(door, team.key, "slow", streamed=streamed))
    await until(lambda: stack.books.held(team) > 0)
    try:
        yield call
    finally:
        call.cancel()
        await asyncio.wait((call,))


def kept(directory: Path) -> bytes:
    """Return the settlements in the journal."""
    return journal_content(directory, "*.journal")


def rejected(directory: Path) -> bytes:
    """Return the rejected settlements."""
    return journal_content(directory, "*.rejected")


# ---------------------------------------------------------------- store and disk fail together


@outages("sqlite-failing", "postgres-stopped")
@FORMS
@pytest.mark.parametrize("door", DOORS)
async def test_a_call_that_is_kept_nowhere_is_no_success_and_is_charged_for_what_was_delivered(
    quick_clocks: Timeouts,
    outage: Outage,
    door: DoorName,
    streamed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        with full_disk(monkeypatch):
            async with (
                running_call(stack, door, team, streamed=streamed) as call,
                outage.away(stack.books.store),
            ):
                answer = await call
                await stack.service.rests()
            # The disk is still full when the store is back.
            await until(stack.books.no_hold_is_open)
        assert answer.code == "store_unavailable"
        assert answer.retryable is not True
        assert answer.retry_after_ms is None
        if streamed:
            assert answer.pieces == 8
            charged = Charge(amount=cost(1, 8), prompt=1, completion=8, partial=True)
            assert stack.books.charges(team) == [charged]
        else:
            assert (answer.status, answer.message_bytes) == (503, 0)
            assert stack.books.charges(team) == []
        stack.books.nothing_is_open()
        assert stack.service.metric("chat_settlements_lost_total") == 0


@outages("sqlite-failing")
async def test_the_disk_may_be_back_before_the_store(
    quick_clocks: Timeouts, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        async with running_call(stack, "grpc", team, streamed=True) as call, outage.away():
            with full_disk(monkeypatch):
                assert (await call).code == "store_unavailable"
                await stack.service.rests()
            await until(lambda: kept(stack.directory).count(b"\n") == 1)
        await until(lambda: kept(stack.directory) == b"")

        assert [charge.completion for charge in stack.books.charges(team)] == [8]
        stack.books.nothing_is_open()


@outages("sqlite-failing")
async def test_what_a_process_ends_with_in_memory_is_written_at_its_end(
    quick_clocks: Timeouts, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        # No round of housekeeping except the last one.
        monkeypatch.setattr("service.ledger.housekeeping.INTERVAL", PATIENCE)
        async with running_call(stack, "grpc", team, streamed=True) as call, outage.away():
            with full_disk(monkeypatch):
                assert (await call).code == "store_unavailable"
            await stack.service.server.stop(delay=0)
        assert kept(stack.directory).count(b"\n") == 1
        assert stack.service.metric("chat_settlements_lost_total") == 0


# ----------------------------------------------------------------------- the store is another one


@outages("sqlite-locked")
async def test_a_journal_of_another_store_is_set_aside_and_can_be_applied_later(
    outage: Outage, tmp_path: Path
) -> None:
    right, wrong = outage.database, f"sqlite:///{tmp_path}/wrong.db"
    for database in (right, wrong):
        store = Store(database)
        migrate(store)
        store.close()
    come = asyncio.Event()
    async with simulator() as upstream:
        with books(right) as opened:
            team = opened.team()
            async with service_process(tmp_path, right, upstream, MODELS) as (service, client):
                call = asyncio.create_task(
                    ask_grpc(
                        client.channel,
                        team.key,
                        document("hanging"),
                        streamed=True,
                        watch=lambda count: come.set() if count == 4 else None,
                    )
                )
                await come.wait()
                async with outage.away(opened.store):
                    call.cancel()
                    await asyncio.wait((call,))
                    await until(lambda: kept(tmp_path).count(b"settle") == 1)
                    service.send(signal.SIGKILL)
                    assert await service.exit_status() == -signal.SIGKILL
            for _ in range(2):
                async with service_process(tmp_path, wrong, upstream, MODELS) as (service, _):
                    await until(lambda: kept(tmp_path) == b"")
                    service.send(signal.SIGTERM)
                    assert await service.exit_status() == 0
                assert rejected(tmp_path).count(b"\n") == 1
            (file,) = journal_directory(tmp_path).glob("*.*")
            file.rename(file.with_suffix(".journal"))
            async with service_process(tmp_path, right, upstream, MODELS):
                await until(lambda: kept(tmp_path) == b"")

            assert [charge.partial for charge in opened.charges(team)] == [True]
            opened.nothing_is_open()
        assert rejected(tmp_path) == b""


# ------------------------------------------------------------------------------ look-ups of keys


@outages("sqlite-silent", "postgres-frozen")
async def test_lookups_of_a_store_that_freezes_end_in_time_and_come_back_with_it(
    quick_clocks: Timeouts, outage: Outage
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        async with outage.away(stack.books.store):
            async with asyncio.timeout(PATIENCE):
                answers = await asyncio.gather(
                    *(
                        stack.ask("grpc", f"sk-live-{number}", "default", deadline=PATIENCE)
                        for number in range(100)
                    ),
                    stack.ask("grpc", team.key, "default", deadline=PATIENCE),
                )
            assert {(answer.status, answer.code) for answer in answers} == {
                (503, "store_unavailable")
            }
        await until_answered(stack, team)
        assert (await stack.ask("grpc", "sk-live-1", "default")).code == "invalid_api_key"
        await stack.rests()


async def until_answered(stack: AccountsStack, team: Team) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await stack.ask("grpc", team.key, "default")).code == "store_unavailable":
            pass


def strangers(client: Client, count: int) -> list["asyncio.Task[Answer]"]:
    """Make calls, each with a different unknown key."""
    return [
        asyncio.create_task(
            ask_grpc(client.channel, f"sk-live-{number}", document("default"), streamed=False)
        )
        for number in range(count)
    ]


@outages("postgres-frozen")
async def test_a_process_ends_though_its_lookups_wait_for_a_store_that_froze(
    outage: Outage, tmp_path: Path
) -> None:
    async with (
        simulator() as upstream,
        service_process(tmp_path, outage.database, upstream, MODELS) as (service, client),
    ):
        with books(outage.database) as opened:
            async with outage.away(opened.store):
                answers = await asyncio.gather(*strangers(client, 50))
                assert {answer.code for answer in answers} == {"store_unavailable"}
                calls = strangers(client, 50)
                service.send(signal.SIGTERM)
                assert await service.exit_status() == 0
                await asyncio.wait(calls)

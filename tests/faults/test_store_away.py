"""The store goes away and comes back, on both databases, in the ways of `tests.support.outages`.

new calls        503 STORE_UNAVAILABLE, soon, and never 401
running calls    end as usual; their charges wait in the journal, and are applied once
readiness        NOT_SERVING in the meantime
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.ledger.store import Timeouts
from service.simulator import SimulatorServer
from tests.support.accounts_stack import (
    AccountsStack,
    accounts_stack,
    journal_content,
    journal_directory,
    service_process,
)
from tests.support.asking import DOORS, DoorName, ask_grpc, document
from tests.support.books import Books, Charge, Team, books
from tests.support.outages import (
    FORMS,
    MODELS,
    NOT_SERVING,
    SERVING,
    Outage,
    assert_unavailable,
    is_ready,
    outage,
    outages,
    streaming,
)
from tests.support.priced_models import cost
from tests.support.processes import Process
from tests.support.running_service import simulator
from tests.support.waiting import PATIENCE, until

__all__ = ["outage"]


@pytest.fixture
def quick_clocks(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> Timeouts:
    """Shorten the housekeeping interval and the timeouts of services in this process."""
    monkeypatch.setattr("service.ledger.housekeeping.INTERVAL", 0.02)
    # Long enough that a working store does not count as away on a busy machine.
    if outage.answers:
        return Timeouts(busy=0.25)
    # The store's own timeouts must be longer than these, as in production.
    monkeypatch.setattr("service.ledger.housekeeping.PATIENCE", 1.0)
    monkeypatch.setattr("service.open_accounts.PATIENCE", 1.0)
    return Timeouts()


def journal(directory: Path) -> bytes:
    """Return the settlements in the journal, or those that were rejected."""
    return journal_content(directory, "*.*")


# -------------------------------------------------------------------------------------- new calls


@outages("sqlite-failing", "sqlite-absent", "postgres-stopped", "postgres-barred")
@FORMS
@pytest.mark.parametrize("door", DOORS)
async def test_new_calls_are_told_so_and_never_that_their_key_is_wrong(
    quick_clocks: Timeouts, outage: Outage, door: DoorName, streamed: bool
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        known, unseen = stack.books.team(), stack.books.team()
        assert (await stack.ask(door, known.key, "default", streamed=streamed)).code == ""
        await stack.service.rests()
        async with outage.away(stack.books.store):
            await is_ready(stack.channel, NOT_SERVING)
            for key in (known.key, unseen.key, "sk-live-that-nobody-has"):
                assert_unavailable(await stack.ask(door, key, "default", streamed=streamed))
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


@outages("sqlite-locked", "postgres-locked")
@FORMS
@pytest.mark.parametrize("door", DOORS)
async def test_a_lock_of_another_process_is_an_absence(
    quick_clocks: Timeouts, outage: Outage, door: DoorName, streamed: bool
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        known, unseen = stack.books.team(), stack.books.team()
        assert (await stack.ask(door, known.key, "default", streamed=streamed)).code == ""
        await stack.service.rests()
        async with outage.away(stack.books.store):
            await is_ready(stack.channel, NOT_SERVING)
            for team in (known, unseen):
                assert_unavailable(await stack.ask(door, team.key, "default", streamed=streamed))
        await is_ready(stack.channel, SERVING)
        assert (await stack.ask(door, unseen.key, "default", streamed=streamed)).code == ""
        await stack.service.rests()
        await until(lambda: journal(stack.directory) == b"")
        stack.books.nothing_is_open()


@outages("sqlite-full")
async def test_a_full_disk_is_an_absence_once_a_call_has_met_it(
    quick_clocks: Timeouts, outage: Outage
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        async with outage.away(stack.books.store):
            # Locks still work: a write fails.
            assert_unavailable(await stack.ask("grpc", team.key, "default"))
            await is_ready(stack.channel, NOT_SERVING)
        await is_ready(stack.channel, SERVING)
        assert (await stack.ask("grpc", team.key, "default")).code == ""
        await stack.service.rests()
        await until(lambda: journal(stack.directory) == b"")
        stack.books.nothing_is_open()


@outages("sqlite-silent", "postgres-frozen")
@FORMS
async def test_a_store_that_does_not_answer_is_not_waited_for(
    quick_clocks: Timeouts, outage: Outage, streamed: bool
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        known, unseen = stack.books.team(), stack.books.team()
        assert (await stack.ask("grpc", known.key, "default", streamed=streamed)).code == ""
        await stack.service.rests()
        async with outage.away(stack.books.store):
            answers = await asyncio.gather(
                *(
                    stack.ask("grpc", team.key, "default", streamed=streamed)
                    for team in (known, unseen)
                )
            )
            await is_ready(stack.channel, NOT_SERVING)
        await is_ready(stack.channel, SERVING)

        for answer in answers:
            assert_unavailable(answer)
        # The first hold is placed too late, and then released.
        await until(lambda: len(stack.books.holds(known)) == 2)
        await until(lambda: stack.books.held(known) == 0)
        await until(lambda: journal(stack.directory) == b"")
        assert len(stack.books.charges(known)) == 1
        stack.books.nothing_is_open()


@outages("sqlite-silent", "postgres-frozen")
async def test_who_leaves_while_the_store_does_not_answer_holds_nothing(
    quick_clocks: Timeouts, outage: Outage
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        assert (await stack.ask("grpc", team.key, "default")).code == ""
        async with outage.away(stack.books.store):
            call = asyncio.create_task(stack.ask("grpc", team.key, "default"))
            await until(lambda: stack.service.calls_in_flight == 1)
            call.cancel()
            await asyncio.wait((call,))
            await stack.service.rests()
        await is_ready(stack.channel, SERVING)
        assert (await stack.ask("grpc", team.key, "default")).code == ""
        await stack.service.rests()

        await until(lambda: stack.books.held(team) == 0)
        assert len(stack.upstream.records) == 2
        stack.books.nothing_is_open()


# --------------------------------------------------------------------------------- running calls


@outages("sqlite-locked", "sqlite-full", "postgres-locked", "postgres-stopped", "postgres-frozen")
async def test_running_streams_end_as_usual_and_are_charged_once(
    quick_clocks: Timeouts, outage: Outage
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        finishing, leaving = stack.books.team(), stack.books.team()
        async with (
            streaming(stack.channel, finishing, "slow", 1) as finishes,
            streaming(stack.channel, leaving, "hanging", 4) as leaves,
            outage.away(stack.books.store),
        ):
            leaves.cancel()
            answer = await finishes
            await stack.service.rests()
            kept = journal(stack.directory)
            if outage.readable:
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


@outages("sqlite-locked", "postgres-locked", "postgres-stopped", "postgres-frozen")
async def test_what_a_replay_cannot_take_is_counted(
    quick_clocks: Timeouts, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.admission.LEASE_BEYOND_DEADLINE", -PATIENCE)
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        # Its lease ends immediately, so its settlement finds it expired and the credit spent.
        async with streaming(stack.channel, team, "slow", 1) as finishes:
            await until(lambda: stack.books.held(team) == 0)
            stack.books.grant(team.account_id, -stack.books.balance(team))
            async with outage.away(stack.books.store):
                await finishes
                await stack.service.rests()
        await until(lambda: journal(stack.directory) == b"")

        assert [charge.amount for charge in stack.books.charges(team)] == [0]
        assert stack.service.metric("chat_usage_above_hold_nano_credits_total") == cost(1, 8)
        stack.books.nothing_is_open()


# ------------------------------------------------------------------------- processes that end


@asynccontextmanager
async def beginning(
    directory: Path, database: str
) -> AsyncIterator[tuple[SimulatorServer, Books, Team]]:
    """Run an upstream, and create a store with a team by starting a service once."""
    async with simulator() as upstream:
        async with service_process(directory, database, upstream, MODELS) as (service, _):
            await end(service)
        with books(database) as opened:
            yield upstream, opened, opened.team()


async def end(service: Process) -> None:
    """Drain a process, and check that it has."""
    service.send(signal.SIGTERM)
    assert await service.exit_status() == 0


def partial(opened: Books, team: Team) -> list[tuple[int, bool]]:
    return [(charge.completion, charge.partial) for charge in opened.charges(team)]


@outages("sqlite-locked", "postgres-stopped", "postgres-frozen")
async def test_a_settlement_in_the_journal_survives_sigkill(outage: Outage, tmp_path: Path) -> None:
    async with beginning(tmp_path, outage.database) as (upstream, opened, team):
        async with (
            service_process(tmp_path, outage.database, upstream, MODELS) as (service, client),
            streaming(client.channel, team, "hanging", 4) as call,
            outage.away(opened.store),
        ):
            call.cancel()
            # Well within this deadline, with the timeouts of production.
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
            async with service_process(tmp_path, outage.database, upstream, MODELS) as (service, _):
                await until(lambda: journal(tmp_path) == b"")
                await end(service)
            assert partial(opened, team) == [(4, True)]
            opened.nothing_is_open()
        assert list(journal_directory(tmp_path).glob("*.*")) == []


async def test_a_drain_settles_what_it_cuts(database: str, tmp_path: Path) -> None:
    async with beginning(tmp_path, database) as (upstream, opened, team):
        async with (
            service_process(tmp_path, database, upstream, MODELS) as (service, client),
            streaming(client.channel, team, "hanging", 4) as first,
            streaming(client.channel, team, "hanging", 4) as second,
            streaming(client.channel, team, "hanging", 4) as third,
        ):
            await end(service)
            answers = [await first, await second, await third]
        assert [answer.code for answer in answers] == ["draining"] * 3
        assert partial(opened, team) == [(4, True)] * 3
        assert list(journal_directory(tmp_path).glob("*.*")) == []
        opened.nothing_is_open()


@outages("sqlite-locked", "postgres-stopped", "postgres-frozen")
async def test_a_drain_without_the_store_keeps_what_it_cuts(outage: Outage, tmp_path: Path) -> None:
    async with beginning(tmp_path, outage.database) as (upstream, opened, team):
        async with (
            service_process(tmp_path, outage.database, upstream, MODELS) as (service, client),
            streaming(client.channel, team, "hanging", 4) as call,
            outage.away(opened.store),
        ):
            await end(service)
            answer = await call
        assert answer.code == "draining"
        assert opened.charges(team) == []
        assert journal(tmp_path).count(b"\n") == 1
        async with service_process(tmp_path, outage.database, upstream, MODELS) as (service, _):
            await until(lambda: journal(tmp_path) == b"")
            await end(service)
        assert partial(opened, team) == [(4, True)]
        assert list(journal_directory(tmp_path).glob("*.*")) == []
        opened.nothing_is_open()


async def test_the_drain_of_a_service_in_this_process_settles(database: str) -> None:
    stack: AccountsStack
    async with accounts_stack(MODELS, database=database) as stack:
        team = stack.books.team()
        async with streaming(stack.channel, team, "hanging", 4) as call:
            await stack.service.server.stop()
            answer = await call
        assert answer.code == "draining"
        assert partial(stack.books, team) == [(4, True)]
        assert journal(stack.directory) == b""
        stack.books.nothing_is_open()

"""PostgreSQL that responds but rejects writes for a while, under load.

an address that leads to a hot standby and back       the standby's sessions stay open behind it
an address that leads to a standby, then promoted     replication is synchronous: nothing is lost
a primary that is killed, and its standby promoted    the same, with calls under way
default_transaction_read_only, switched on and off    of the database, the role, the server

`store_load` has the calls, and what is expected of them.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from service.ledger.batches import Batches
from service.ledger.migrations import migrate
from service.ledger.rows import EntryKind, Placed, Release
from service.ledger.store import Store, StoreError, Timeouts
from tests.faults.address import address
from tests.faults.store_load import loaded, survives
from tests.faults.stores import Team
from tests.support.accounts_stack import accounts_stack, journal_directory
from tests.support.outages import MODELS, SERVING, is_ready, streaming
from tests.support.postgres import Server, running
from tests.support.processes import environment
from tests.support.tree import ROOT
from tests.support.waiting import until

_NOTHING = Release(hold_id="", account_id=0, key_id=0)

ATTRIBUTES = pytest.mark.parametrize(
    "attributes", ["", "?target_session_attrs=any"], ids=["refused", "accepted"]
)
"""Read-only sessions: refused at their start, as usual, or allowed by the address."""


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services in this process do housekeeping more often, and look up no key twice.

    A lookup in progress would open a new session in addition to the useless ones, and so hide them.
    """
    monkeypatch.setattr("service.ledger.housekeeping.INTERVAL", 0.02)
    monkeypatch.setattr("service.authentication.REMEMBERED", 1000.0)


@pytest.fixture
def name(own_server: Server) -> Iterator[str]:
    """An empty database of the server."""
    with own_server.lent() as lent:
        yield lent


@pytest.fixture
def standby(own_server: Server) -> Iterator[Server]:
    """A hot standby of the server."""
    with running(["fsync=off"], in_memory=True, primary=own_server) as server:
        yield server


@contextmanager
def replicated(primary: Server) -> Iterator[None]:
    """Make commits wait for the standby, for the block."""
    primary.set("synchronous_standby_names", "*")
    try:
        yield
    finally:
        primary.set("synchronous_standby_names", "")


@ATTRIBUTES
async def test_an_address_that_leads_to_a_standby_and_back(
    own_server: Server, standby: Server, name: str, attributes: str
) -> None:
    with address(own_server.port) as moving:
        database = own_server.tcp_url(name, moving.port) + attributes
        async with loaded(database) as (stack, load):
            await survives(
                stack,
                load,
                begin=lambda: moving.lead(standby.port, cut=True),
                end=lambda: moving.lead(own_server.port),
            )
            await until(lambda: standby.sessions(name) == 0, "a session there is left")


@ATTRIBUTES
async def test_an_address_that_leads_to_a_standby_that_is_promoted(
    own_server: Server, standby: Server, name: str, attributes: str
) -> None:
    with replicated(own_server), address(own_server.port) as moving:
        async with loaded(own_server.tcp_url(name, moving.port) + attributes) as (stack, load):
            await survives(
                stack,
                load,
                begin=lambda: moving.lead(standby.port, cut=True),
                end=standby.promote,
            )
            await until(lambda: own_server.sessions(name) == 0, "a session there is left")


@pytest.mark.parametrize("by", ["a virtual address", "several hosts"])
async def test_a_primary_that_is_killed_under_load_loses_nothing_to_its_standby(
    own_server: Server, standby: Server, name: str, by: str
) -> None:
    with replicated(own_server), address(own_server.port) as moving:
        hosts = f"127.0.0.1:{own_server.port},127.0.0.1:{standby.port}"
        url = {
            "a virtual address": own_server.tcp_url(name, moving.port),
            "several hosts": f"postgresql://tester@{hosts}/{name}",
        }[by]
        try:
            async with loaded(url) as (stack, load):
                await load.more()
                await asyncio.to_thread(own_server.stop, signal.SIGKILL)
                moving.lead(standby.port, cut=True)
                await load.more_refused()
                await asyncio.to_thread(standby.promote)
                await is_ready(stack.channel, SERVING)
                await load.more()
                stack.books.store.close()  # its connections led to the former server
        finally:
            await asyncio.to_thread(own_server.start)


async def test_what_a_standby_that_lagged_has_lost_is_logged(
    own_server: Server,
    standby: Server,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("service.ledger.history.WRITTEN_EVERY", 0.0)
    with address(own_server.port) as moving:
        url = own_server.tcp_url(name, moving.port)
        async with accounts_stack(MODELS, database=url) as stack:
            team = stack.books.team()
            assert (await stack.ask("grpc", team.key, "default")).status == 200
            kept = stack.books.charges(team)
            await asyncio.to_thread(follow, own_server, standby, name)
            standby.set("primary_conninfo", "")
            await until(lambda: not _followers(own_server), "the standby still follows")

            assert (await stack.ask("grpc", team.key, "default")).status == 200
            mark = journal_directory(stack.directory) / "history"
            await until(lambda: b'"entry":3,' in mark.read_bytes(), "the charge is not seen")
            async with streaming(stack.channel, team, "hanging", 4) as leaves:
                moving.lead(standby.port, cut=True)
                await asyncio.to_thread(standby.promote)
                stack.books.store.close()  # its connections led to the former server
                await until(lambda: "store has forgotten charges" in caplog.text)
                leaves.cancel()
            await until(lambda: len(stack.books.charges(team)) > 1, "the stream is not charged")
            first, second = stack.books.charges(team)
            # The whole call is lost. The stream outlived its hold, and is charged nevertheless.
            assert [first] == kept
            assert (second.kind, second.completion) == (EntryKind.ADJUST, 4)
            await stack.rests()
            stack.books.nothing_is_open()


def _followers(server: Server) -> bool:
    with server.connect("postgres") as connection:
        return connection.execute("SELECT 1 FROM pg_stat_replication").fetchone() is not None


@ATTRIBUTES
@pytest.mark.parametrize("of", ["DATABASE {}", "ROLE tester", "ROLE tester IN DATABASE {}"])
async def test_a_default_that_is_switched_on_and_off(
    own_server: Server, name: str, of: str, attributes: str
) -> None:
    changes = "ALTER " + of.format(name)

    def begin() -> None:
        with own_server.connect("postgres") as connection:
            connection.execute(f"{changes} SET default_transaction_read_only = on")
            # Sessions get the setting at their start, so they are replaced as they end.
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )

    def end() -> None:
        with own_server.connect("postgres") as connection:
            connection.execute(f"{changes} RESET default_transaction_read_only")

    try:
        async with loaded(own_server.tcp_url(name) + attributes) as (stack, load):
            await survives(stack, load, begin, end)
    finally:
        end()


@ATTRIBUTES
async def test_a_server_that_is_made_read_only_for_a_while(
    own_server: Server, name: str, attributes: str
) -> None:
    async with loaded(own_server.tcp_url(name) + attributes) as (stack, load):
        await survives(
            stack,
            load,
            begin=lambda: own_server.set("default_transaction_read_only", "on"),
            end=lambda: own_server.set("default_transaction_read_only", "off"),
        )


# ------------------------------------------------------------------------------- the store alone


async def test_an_absent_synchronous_standby_does_not_use_up_the_sessions(
    own_server: Server, name: str
) -> None:
    store = Store(own_server.tcp_url(name), timeouts=Timeouts(busy=1.0))
    migrate(store)
    teams = [Team.create(store, credit=100, name=f"team-{number}") for number in range(5)]
    batches = Batches(store, answer_within=1.0)
    own_server.set("synchronous_standby_names", "absent")
    try:
        with suppress(StoreError):
            while True:  # the sessions of the server learn of the setting one by one
                await batches.submit(teams[0].place("a"))
                await batches.submit(teams[0].release("a"))

        async def refused() -> bool:
            try:
                await batches.submit(_NOTHING)
            except StoreError as error:
                return "COMMIT waits for a synchronous standby (1 times)" in str(error)
            return False

        while not await refused():
            pass  # each waits for the server
        for team in teams:
            with pytest.raises(StoreError, match="COMMIT waits for a synchronous standby"):
                await batches.submit(team.place("b"))
        with own_server.connect(name) as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            ).fetchone()
        assert found == (1,)
    finally:
        own_server.set("synchronous_standby_names", "")
    while await refused():
        pass
    assert isinstance(await batches.submit(teams[1].place("c")), Placed)
    await batches.submit(teams[1].settle("c", 7))
    assert teams[1].balance(store) == (93, 0)
    await batches.close()
    store.close()


def _in_recovery(store: Store) -> bool:
    with store.reading() as connection:
        return bool(connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one())


@pytest.fixture
def team(own_server: Server, name: str) -> Team:
    """An account in the database."""
    store = Store(own_server.url(name))
    migrate(store)
    made = Team.create(store, credit=100)
    store.close()
    return made


def follow(primary: Server, standby: Server, name: str) -> None:
    """Wait until a standby has caught up with its primary."""
    with primary.connect(name) as connection:
        found = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
    assert found is not None
    with standby.connect(name) as connection:
        while connection.execute(
            "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (str(found[0]),)
        ).fetchone() != (True,):
            pass  # each query waits for the server


@pytest.mark.parametrize("form", ["libpq", "sqlalchemy"])
def test_an_address_of_several_servers_leads_to_the_one_that_writes(
    own_server: Server, standby: Server, name: str, team: Team, form: str
) -> None:
    hosts = [f"127.0.0.1:{server.port}" for server in (standby, own_server)]
    places = {
        "libpq": f"tester@{','.join(hosts)}/{name}",
        "sqlalchemy": f"tester@/{name}?host={'&host='.join(hosts)}",
    }
    store = Store(f"postgresql://{places[form]}")
    assert isinstance(store.apply([team.place("a")])[0], Placed)
    assert not _in_recovery(store)
    store.try_writing()
    store.close()


def test_no_session_begins_that_cannot_write(
    own_server: Server, standby: Server, name: str, team: Team
) -> None:
    store = Store(standby.url(name))
    for function in (store.ping, store.try_writing, lambda: store.apply([team.place("a")])):
        with pytest.raises(StoreError, match="session is read-only"):
            function()
    store.close()


async def test_commands_read_a_standby_where_its_address_says_so(
    own_server: Server, standby: Server, name: str, team: Team
) -> None:
    follow(own_server, standby, name)
    for query, status in (("", 3), ("&target_session_attrs=any", 0)):
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "ledger", "verify"),
            env=environment(CHAT_DATABASE_URL=standby.url(name) + query),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await command.communicate()
        assert command.returncode == status, said
        assert (b"session is read-only" in said) == (status == 3)


@pytest.mark.parametrize("by", ["a batch", "an operator"])
def test_no_session_reads_what_is_old_after_another_could_not_write(
    own_server: Server, standby: Server, name: str, team: Team, by: str
) -> None:
    follow(own_server, standby, name)
    place = [team.place("a")]
    with address(standby.port) as moving:
        store = Store(own_server.tcp_url(name, moving.port) + "?target_session_attrs=any")
        with store.reading(), store.reading():
            assert _in_recovery(store)  # three sessions
        write = store.try_writing if by == "an operator" else partial(store.apply, place)
        with pytest.raises(StoreError, match="read-only transaction"):
            write()
        moving.lead(own_server.port)
        with store.reading(), store.reading():
            assert not _in_recovery(store)
        assert isinstance(store.apply(place)[0], Placed)
        store.try_writing()
        store.close()

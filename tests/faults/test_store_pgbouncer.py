"""A store behind a real PgBouncer, in each of its modes.

session, transaction    the store works, and leaves nothing in the sessions that others use
statement               the service does not start, and names the mode
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from service.ledger.batches import Batches
from service.ledger.migrations import migrate
from service.ledger.rows import Placed
from service.ledger.store import Store, StoreError, Timeouts
from tests.faults.store_load import loaded, survives
from tests.faults.stores import Team, assert_sound, entries
from tests.support.pgbouncer import PoolMode, pgbouncer, pgbouncer_program
from tests.support.postgres import Server

MODES = pytest.mark.parametrize("mode", ["session", "transaction"])
SESSIONS = 3
"""Fewer than the clients, so that they share sessions in transaction mode."""


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services in this process do housekeeping more often."""
    monkeypatch.setattr("service.ledger.housekeeping.INTERVAL", 0.02)


@pytest.fixture
def pooled() -> Iterator[Any]:
    """Start a PgBouncer, and return the address of a database behind it."""
    if pgbouncer_program() is None and not os.environ.get("CI"):
        pytest.skip("PgBouncer is not installed")
    with ExitStack() as stack:

        def start(server: Server, name: str, mode: PoolMode, pool_size: int = SESSIONS) -> str:
            port = stack.enter_context(pgbouncer(server, mode, pool_size=pool_size))
            return server.tcp_url(name, port)

        yield start


@pytest.fixture
def name(own_server: Server) -> Iterator[str]:
    """An empty database of the server."""
    with own_server.lent() as lent:
        yield lent


def _settings(store: Store) -> tuple[str, ...]:
    names = ("lock_timeout", "statement_timeout", "synchronous_commit")
    with store.reading() as connection:
        return tuple(connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names)


@MODES
async def test_replicas_share_sessions_and_leave_nothing_in_them(
    own_server: Server, name: str, pooled: Any, mode: PoolMode
) -> None:
    with own_server.connect(name) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    try:
        stores = [Store(pooled(own_server, name, mode, 20 if mode == "session" else SESSIONS))]
        stores += [Store(stores[0]._database.engine.url.render_as_string()) for _ in range(3)]
        for store in stores:
            await asyncio.to_thread(migrate, store)
        team = Team.create(stores[0], credit=10_000)
        replicas = [Batches(store) for store in stores]

        async def calls(replica: Batches, number: int) -> None:
            for call in range(25):
                hold = f"{number}-{call}"
                assert isinstance(await replica.submit(team.place(hold)), Placed)
                await replica.submit(team.settle(hold, 7))
                await replica.read(stores[number % 4].ping)

        async with asyncio.TaskGroup() as tasks:
            for number in range(12):
                tasks.create_task(calls(replicas[number % 4], number))
        assert len(entries(stores[0])) == 12 * 25
        assert_sound(stores[0])
        assert _settings(stores[0]) == ("4s", "8s", "on")
        for replica in replicas:
            await replica.close()
        for store in stores:
            store.close()

        if mode == "transaction":
            url = stores[0]._database.engine.url
            with _stranger(own_server, name, int(str(url.port))) as stranger:
                for query, expected in (
                    ("SHOW lock_timeout", "0"),
                    ("SHOW enable_seqscan", "on"),
                    ("SELECT count(*) FROM pg_prepared_statements", 0),
                ):
                    assert stranger.execute(query).fetchone() == (expected,)
    finally:
        with own_server.connect(name) as connection:
            connection.execute(f"ALTER DATABASE {name} RESET ALL")


def _stranger(server: Server, name: str, port: int) -> Any:
    import psycopg  # noqa: PLC0415

    return psycopg.connect(server.tcp_url(name, port), autocommit=True, prepare_threshold=None)


@MODES
def test_batches_have_their_limits(
    own_server: Server, name: str, pooled: Any, mode: PoolMode
) -> None:
    store = Store(pooled(own_server, name, mode), timeouts=Timeouts(busy=1.0))
    migrate(store)
    team = Team.create(store, credit=100)
    with own_server.connect(name) as other, other.transaction():
        other.execute("SELECT id FROM accounts FOR UPDATE")
        with pytest.raises(StoreError, match="lock timeout"):
            store.apply([team.place("a")])
    assert isinstance(store.apply([team.place("a")])[0], Placed)
    store.close()


@MODES
async def test_a_server_behind_it_that_rejects_writes_for_a_while(
    own_server: Server, name: str, pooled: Any, mode: PoolMode
) -> None:
    async with loaded(pooled(own_server, name, mode, 20)) as (stack, load):
        await survives(
            stack,
            load,
            begin=lambda: own_server.set("default_transaction_read_only", "on"),
            end=lambda: own_server.set("default_transaction_read_only", "off"),
        )


def test_statement_mode_is_refused(own_server: Server, name: str, pooled: Any) -> None:
    store = Store(pooled(own_server, name, "statement"))
    with pytest.raises(StoreError, match="set pool_mode of PgBouncer"):
        migrate(store)
    store.close()

"""A server that crashes, freezes or drops connections, or whose responses are lost."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest

from service.ledger.batches import Batches
from service.ledger.migrations import migrate
from service.ledger.postgres_statements import BEGIN
from service.ledger.rows import Ended, HoldState, Operation, Placed
from service.ledger.store import TIMEOUTS, Store, StoreError, Timeouts
from tests.faults.stores import Team, assert_sound, entries
from tests.support.postgres import Server, binaries, running

CREDIT = 10**12
CALLERS = 16


class Load:
    """Callers that place and settle until stopped, and their outcomes."""

    def __init__(self, batches: Batches, team: Team) -> None:
        self._batches = batches
        self._team = team
        self._stopping = False
        self.settled: dict[str, int] = {}
        self.failures = 0
        self._progress = asyncio.Condition()

    async def call(self) -> None:
        while not self._stopping:
            hold_id = uuid4().hex
            try:
                if isinstance(await self._batches.submit(self._team.place(hold_id)), Placed):
                    await self._batches.submit(self._team.settle(hold_id, 7))
                    self.settled[hold_id] = 7
            except StoreError:
                self.failures += 1
                await asyncio.sleep(0.01)  # as callers would
            async with self._progress:
                self._progress.notify_all()

    async def more(self, count: int) -> None:
        """Wait until as many more are settled."""
        goal = len(self.settled) + count
        async with asyncio.timeout(60), self._progress:
            await self._progress.wait_for(lambda: len(self.settled) >= goal)

    async def a_failure(self) -> None:
        """Wait until one more fails."""
        goal = self.failures + 1
        async with asyncio.timeout(60), self._progress:
            await self._progress.wait_for(lambda: self.failures >= goal)

    def stop(self) -> None:
        self._stopping = True


@asynccontextmanager
async def _load(batches: Batches, team: Team) -> AsyncIterator[Load]:
    load = Load(batches, team)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(load.call())
        try:
            yield load
        finally:
            load.stop()


def _assert_kept(store: Store, team: Team, load: Load) -> None:
    charged = entries(store)
    assert len(charged) == len(dict(charged))
    assert dict(charged).items() >= load.settled.items()
    assert team.balance(store)[0] == CREDIT - 7 * len(charged)
    assert_sound(store)


async def test_an_immediate_restart_under_load_is_survived(own_server: Server) -> None:
    store = Store(own_server.url(own_server.database()))
    migrate(store)
    team = Team.create(store, credit=CREDIT)
    batches = Batches(store)
    async with _load(batches, team) as load:
        await load.more(300)
        await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
        await load.a_failure()
        with pytest.raises(StoreError, match=r"postgresql\+?.*://tester:\*\*\*@"):
            await batches.call(store.ping)
        await asyncio.to_thread(own_server.start)
        await load.more(300)
    assert load.failures > 0
    await batches.close()
    _assert_kept(store, team, load)
    store.close()


def test_holds_outlive_a_crash_of_the_server() -> None:
    if binaries() is None and not os.environ.get("CI"):
        pytest.skip("PostgreSQL's binaries are not installed")
    # Nothing but a durable commit writes the server's log.
    with running(["wal_writer_delay=10s", "fsync=off"], in_memory=True) as server:
        store = Store(server.url(server.database()))
        migrate(store)
        team = Team.create(store, credit=100)
        store.apply([team.place("first")])
        store.apply([team.place("second"), team.place("third")])
        server.stop(signal.SIGQUIT)
        server.start()
        store.close()
        assert team.balance(store) == (100, 30)
        settled = Ended(state=HoldState.SETTLED, charged=10)
        assert store.apply([team.settle(hold) for hold in ("first", "third")]) == [settled] * 2
        assert team.balance(store) == (80, 10)
        assert_sound(store)
        store.close()


async def test_backends_that_are_terminated_under_load_are_not_noticed(postgres: Server) -> None:
    database = postgres.database()
    store = Store(postgres.url(database))
    migrate(store)
    team = Team.create(store, credit=CREDIT)
    batches = Batches(store)
    async with _load(batches, team) as load:
        for _ in range(30):
            await load.more(20)
            with postgres.connect("postgres") as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    (database,),
                )
        await load.more(100)
    # Each is tried once more on a new connection.
    assert load.failures == 0
    await batches.close()
    _assert_kept(store, team, load)
    store.close()


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [
        (TIMEOUTS, ("4s", "8s", "16s")),
        # On a busy machine, a process can pause between two statements for longer than its timeout.
        (Timeouts(busy=0.25), ("250ms", "500ms", "16s")),
    ],
    ids=["usual", "impatient"],
)
@pytest.mark.parametrize("way", ["operators", "batches"])
def test_a_session_has_its_limits(
    postgres: Server, timeouts: Timeouts, expected: tuple[str, ...], way: str
) -> None:
    store = Store(postgres.url(postgres.database()), timeouts=timeouts)
    migrate(store)
    connection = store._database.engines[way == "batches"].raw_connection()
    driver = cast("psycopg.Connection[Any]", connection.driver_connection)
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    found = tuple(row[0] for name in names for row in driver.execute(f"SHOW {name}"))
    connection.close()
    store.close()
    assert found == expected


async def test_a_server_that_freezes_is_given_up_and_taken_back(postgres: Server) -> None:
    store = Store(postgres.url(postgres.database()))
    migrate(store)
    team = Team.create(store, credit=CREDIT)
    batches = Batches(store, answer_within=1.0)
    assert isinstance(await batches.submit(team.place("a")), Placed)
    with postgres.frozen():
        async with asyncio.timeout(TIMEOUTS.busy):
            waiters = [batches.submit(team.settle("a", 7)) for _ in range(3)]
            for waiter in waiters:
                with pytest.raises(StoreError):
                    await waiter
    ended = await batches.submit(team.settle("a", 7))
    assert ended == await batches.submit(team.settle("a", 7))
    await batches.close()
    assert team.balance(store) == (CREDIT - 7, 0)
    assert entries(store) == [("a", 7)]
    assert_sound(store)
    store.close()


class Lossy:
    """A proxy of a server that loses the response of the next COMMIT, and closes the connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.losing = False
        self.lost = 0
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    def _start(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += (client, server)
            swallow = threading.Event()
            self._start(self._forward, client, server, swallow, True)
            self._start(self._forward, server, client, swallow, False)

    def _forward(
        self,
        source: socket.socket,
        target: socket.socket,
        swallow: threading.Event,
        to_server: bool,
    ) -> None:
        with suppress(OSError):  # the other direction has closed both
            while data := source.recv(65536):
                if to_server and self.losing and b"COMMIT" in data:
                    self.losing = False
                    swallow.set()
                if not to_server and swallow.is_set():
                    # The server has answered, so it has committed.
                    self.lost += 1
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):  # closed already
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        for one in self._sockets:
            one.close()


@pytest.fixture
def lossy(postgres: Server) -> Iterator[Lossy]:
    """The proxy that loses responses."""
    between = Lossy(postgres.port)
    yield between
    between.close()


def test_a_commit_whose_answer_is_lost_is_not_applied_twice(postgres: Server, lossy: Lossy) -> None:
    database = postgres.database()
    direct = Store(postgres.url(database))
    migrate(direct)
    team = Team.create(direct, credit=15)
    store = Store(postgres.tcp_url(database, lossy.port))
    store.apply([team.grant(1, "connects")])
    steps: list[tuple[list[Operation], tuple[int, int]]] = [
        ([team.place("a")], (16, 10)),
        ([team.settle("a")], (6, 0)),
        ([team.grant(5, "more")], (11, 0)),
        ([team.place("b"), team.settle("b"), team.place("c", amount=1)], (1, 1)),
    ]
    for number, (operations, left) in enumerate(steps, 1):
        lossy.losing = True
        first = store.apply(operations)
        assert lossy.lost == number
        assert team.balance(direct) == left
        again = store.apply(operations)
        if number != 4:  # the levels of the limits differ in its last outcome
            assert again == first
        assert team.balance(direct) == left
    assert entries(direct) == [("a", 10), ("b", 10)]
    assert_sound(direct)
    store.close()
    direct.close()


def test_defaults_of_the_database_weaken_nothing(postgres: Server) -> None:
    database = postgres.database()
    with postgres.connect(database) as connection:
        for setting in ("synchronous_commit = off", "default_transaction_isolation = serializable"):
            connection.execute(f"ALTER DATABASE {database} SET {setting}")
    store = Store(postgres.url(database))
    migrate(store)
    for engine in store._database.engines:
        with engine.connect() as connected:
            if engine is not store.engine:
                connected.exec_driver_sql(BEGIN.text.decode())  # as a batch does
            for name, expected in (
                ("synchronous_commit", "on"),
                ("transaction_isolation", "read committed"),
            ):
                assert connected.exec_driver_sql(f"SHOW {name}").scalar_one() == expected
            if engine is not store.engine:
                connected.exec_driver_sql("ROLLBACK")
    store.close()


def test_a_batch_does_not_notice_that_its_prepared_statements_are_gone(postgres: Server) -> None:
    """A proxy can use a session of another server behind the same connection."""
    store = Store(postgres.url(postgres.database()))
    migrate(store)
    team = Team.create(store, credit=100)
    database: Any = store._database
    with closing(database._spare.take()) as session:
        session.driver_connection.pgconn.exec_(b"DEALLOCATE ALL")
    assert isinstance(store.apply([team.place("a")])[0], Placed)
    assert_sound(store)
    store.close()


def test_a_server_that_is_gone_is_found_out_while_it_owes_an_answer(postgres: Server) -> None:
    database = postgres.database()
    store = Store(postgres.tcp_url(database))
    with closing(store.engine.raw_connection()) as session:
        driver: Any = session.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as end:
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                assert end.getsockopt(socket.IPPROTO_TCP, option) <= TIMEOUTS.busy
    store.close()


def test_an_address_is_told_without_what_is_in_its_query(postgres: Server) -> None:
    store = Store("postgresql://somebody@db.example/accounts?password=a-secret&port=1")
    assert store.name == "postgresql://somebody@db.example/accounts"
    store.close()


def test_an_absent_server_is_named_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = Store(f"postgresql://somebody:a-secret@127.0.0.1:{port}/accounts")
    with pytest.raises(StoreError, match=f"127.0.0.1:{port}/accounts") as raised:
        migrate(store)
    assert "a-secret" not in str(raised.value)
    with pytest.raises(StoreError):
        store.apply([])
    store.close()

"""Stores that go away for a while and come back, in several ways for each database.

                    SQLite                            PostgreSQL
  cannot write      locked: by another connection     locked: tables, except for reads (EXCLUSIVE)
  disk is full      full: no file of this process
                    grows beyond its log
  cannot be read    absent: another file replaces it  barred: tables (ACCESS EXCLUSIVE)
  fails at once     failing: by `FaultyStore`         stopped: crashes, and starts again later
  does not respond  silent: by `FaultyStore`          frozen: by SIGSTOP

@outages("sqlite-locked", "postgres-stopped")         once for each
async def test_…(outage: Outage) -> None:
    async with accounts_stack(database=outage.database) as stack:
        async with outage.away(stack.books.store):
            ...
"""

import asyncio
import resource
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
)
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import sqlalchemy as sa
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg import sql

from service.ledger.database import InThread, blocking
from service.ledger.rows import Operation, Outcome
from service.ledger.schema import metadata
from service.ledger.store import TIMEOUTS, Store, StoreError, Timeouts
from service.server import LIVENESS, READINESS
from tests.support.asking import Answer, ask_grpc, document
from tests.support.books import Team
from tests.support.postgres import Server
from tests.support.priced_models import priced
from tests.support.waiting import PATIENCE

MODELS: Final = {
    "default": priced(),
    "slow": priced(upstream_model="sim:tokens=8,itd=0.1"),  # slower than an outage begins
    "hanging": priced(upstream_model="sim-fault:hang-mid-stream=5,tokens=8"),
}
"""The models of calls during an outage."""

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
FORMS: Final = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])

_Away = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outage:
    """A store, and a way in which it goes away."""

    database: str
    """The address of the store, which is empty at first."""
    readable: bool
    """Whether only writing fails."""
    answers: bool
    """Whether the store reports an error, possibly a timeout."""
    _away: _Away

    @asynccontextmanager
    async def away(self, *stores: Store) -> AsyncIterator[None]:
        """Take the store away for the block.

        Args:
            stores: The test's own stores. Their connections are closed before and after, because
                the reuse of broken connections is not under test here.
        """
        for store in stores:
            store.close()
        # In a thread, so that calls in flight continue.
        outage = ExitStack()
        await asyncio.to_thread(outage.enter_context, self._away())
        try:
            yield
        finally:
            await asyncio.to_thread(outage.close)
        for store in stores:
            store.close()


def outages(*kinds: str) -> pytest.MarkDecorator:
    """Run a test once for each kind of outage."""
    return pytest.mark.parametrize("outage", kinds, indirect=True)


@pytest.fixture
def outage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Outage]:
    """Yield a store with an outage of the kind that `outages` selects."""
    engine, _, kind = request.param.partition("-")
    if engine == "sqlite":
        yield _of_file(kind, tmp_path / "accounts.db", monkeypatch)
    else:
        server: Server = request.getfixturevalue("own_server")
        with server.lent() as name:
            yield _of_server(kind, server, name)


def _of_file(kind: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> Outage:
    fault = Fault()
    if kind in {"failing", "silent"}:
        # Replaces the store of services in this process.
        monkeypatch.setattr("service.open_accounts.Store", partial(FaultyStore, fault=fault))
    kinds: dict[str, _Away] = {
        "locked": partial(_locked, file),
        "full": partial(_full, file),
        "absent": partial(_absent, file),
        "failing": fault.failing,
        "silent": fault.silent,
    }
    return _outage(f"sqlite:///{file}", kind, kinds)


def _of_server(kind: str, server: Server, database: str) -> Outage:
    kinds: dict[str, _Away] = {
        "locked": partial(_held, server, database, "EXCLUSIVE"),
        "barred": partial(_held, server, database, "ACCESS EXCLUSIVE"),
        "stopped": partial(_stopped, server),
        "frozen": server.frozen,
    }
    return _outage(server.url(database), kind, kinds)


def _outage(database: str, kind: str, kinds: Mapping[str, _Away]) -> Outage:
    return Outage(
        database=database,
        readable=kind in {"locked", "full"},
        answers=kind not in {"silent", "frozen"},
        _away=kinds[kind],
    )


# --------------------------------------------------------------------------------------- a file


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with closing(
        sqlite3.connect(file, isolation_level=None, timeout=PATIENCE, check_same_thread=False)
    ) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def _full(file: Path) -> Iterator[None]:
    log = file.with_name(file.name + "-wal")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(
        sqlite3.connect(file, isolation_level=None, timeout=PATIENCE, check_same_thread=False)
    ) as reader:
        # An open read transaction keeps SQLite from restarting or removing the log, even when the
        # service closes its last connection, so that every write extends the log.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_schema")
        # Python ignores SIGXFSZ: a write beyond the limit fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def _absent(file: Path) -> Iterator[None]:
    aside = file.with_suffix(".aside")
    file.rename(aside)
    file.touch()
    try:
        yield
    finally:
        file.unlink()
        aside.rename(file)


class Fault:
    """A fault that all stores with it share."""

    def __init__(self) -> None:
        self._fails = False
        self._answers = threading.Event()
        self._answers.set()
        self._waits = threading.Event()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Make their operations fail for the block."""
        self._fails = True
        try:
            yield
        finally:
            self._fails = False

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Make their operations wait for the block, which begins when one waits."""
        self._waits.clear()
        self._answers.clear()
        try:
            assert self._waits.wait(PATIENCE)
            yield
        finally:
            self._answers.set()

    def check(self) -> None:
        """Wait or fail, if the fault is active."""
        if not self._answers.is_set():
            self._waits.set()
            self._answers.wait(PATIENCE)
        if self._fails:
            raise StoreError("the store is away")


class FaultyStore(Store):
    """A store with a fault. A SQLite file cannot be made to fail immediately or to hang."""

    def __init__(
        self,
        url: str,
        *,
        fault: Fault,
        timeouts: Timeouts = TIMEOUTS,
        thresholds: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(url, timeouts=timeouts, thresholds=thresholds)
        self._fault = fault

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        """Apply operations."""
        await blocking(self._fault.check, in_thread)
        return await super().applying(operations, in_thread)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Connect, for queries."""
        self._fault.check()
        with super().reading() as connection:
            yield connection


# ------------------------------------------------------------------------------------- a server


_TABLES: Final = sql.SQL(", ").join(sql.Identifier(table.name) for table in metadata.sorted_tables)


@contextmanager
def _held(server: Server, database: str, mode: str) -> Iterator[None]:
    with closing(server.connect(database)) as other:
        other.execute("BEGIN")
        other.execute(sql.SQL("LOCK {} IN {} MODE").format(_TABLES, sql.SQL(mode)))
        yield


@contextmanager
def _stopped(server: Server) -> Iterator[None]:
    server.stop(signal.SIGQUIT)
    try:
        yield
    finally:
        server.start()


# ----------------------------------------------------------------------------- checks of callers


async def health(channel: grpc.aio.Channel, status: int, name: str = "") -> None:
    """Wait until the health has this status."""
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its types have no methods
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
    async for response in watch:
        if response.status == status:
            break
    watch.cancel()


async def is_ready(channel: grpc.aio.Channel, status: int) -> None:
    """Wait until the readiness has this status, and check that the liveness is SERVING."""
    for name in READINESS:
        await health(channel, status, name)
    await health(channel, SERVING, LIVENESS)


@asynccontextmanager
async def streaming(
    channel: grpc.aio.Channel, team: Team, model: str, pieces: int
) -> AsyncIterator[asyncio.Task[Answer]]:
    """Start a stream, and wait until some pieces have arrived."""
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

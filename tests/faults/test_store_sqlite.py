"""A database file that is full, locked, damaged or missing."""

import os
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
import sqlalchemy as sa

from service.ledger.batches import Batches
from service.ledger.database import Spare
from service.ledger.migrations import migrate
from service.ledger.rate_limits import MINUTE
from service.ledger.rows import Ended, HoldState, Placed, Refused
from service.ledger.sqlite import SQLite
from service.ledger.store import Store, StoreError, Timeouts
from service.server import Server
from service.start_error import StartError
from tests.faults import store_workers
from tests.faults.stores import Team, assert_sound, entries
from tests.support import running_service

HOUR = 3600 * 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "accounts.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{file}")
    migrate(store)
    yield store
    store.close()


def _limit_pages(store: Store, pages: int) -> None:
    @sa.event.listens_for(store.engine, "connect")
    def _(connection: object, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]  # the driver's

    store.close()  # its connections are opened again


def _fill(store: Store, team: Team, placed: list[str]) -> None:
    """Place holds until it fails, in batches of 20, and note those that stand."""
    for number in range(1000):
        ids = [f"{number}-{n}" for n in range(20)]
        store.apply([team.place(id_) for id_ in ids])
        placed += ids


def test_a_full_database_fails_whole_batches_and_recovers(store: Store, file: Path) -> None:
    team = Team.create(store, credit=10**9)
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    _limit_pages(store, pages + 4)
    placed: list[str] = []
    with pytest.raises(StoreError, match="full") as raised:
        _fill(store, team, placed)
    assert str(file) in str(raised.value)
    assert team.balance(store) == (10**9, 10 * len(placed))
    assert_sound(store)
    _limit_pages(store, 10**6)
    store.apply([team.settle(id_) for id_ in placed])
    assert team.balance(store) == (10**9 - 10 * len(placed), 0)
    assert_sound(store)


def test_a_database_that_can_be_locked_but_takes_no_more_is_found_out(store: Store) -> None:
    team = Team.create(store, credit=10**9)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        assert store.apply([team.release("of no hold")]) == [Ended(state=None)]
        with pytest.raises(StoreError):
            store.try_writing()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.try_writing()
    assert_sound(store)


async def test_a_service_does_not_start_on_a_disk_that_takes_no_more(
    store: Store, file: Path, tmp_path: Path
) -> None:
    store.ping()  # keeps a connection open, so that the log keeps its size
    server = Server(
        running_service.settings(
            database_url=f"sqlite:///{file}",
            journal_directory=str(tmp_path / "journal"),
            bootstrap_api_key="",  # nothing else is written at a start
        ),
        running_service.models(["default"], "http://127.0.0.1:1"),
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StartError, match=r"^CHAT_DATABASE_URL: .*accounts\.db: "):
            await server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_fails_whole_batches_and_recovers(store: Store) -> None:
    team = Team.create(store, credit=10**9)
    placed: list[str] = []
    file = Path(store.name)
    room = 100_000 + max(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ: a write beyond the limit fails as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(StoreError):
            _fill(store, team, placed)
        assert placed
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert team.balance(store) == (10**9, 10 * len(placed))
    store.apply([team.settle(id_) for id_ in placed])
    assert team.balance(store) == (10**9 - 10 * len(placed), 0)
    assert_sound(store)


def test_a_file_locked_by_another_process_is_given_up_in_bounded_time(file: Path) -> None:
    store = Store(f"sqlite:///{file}", timeouts=Timeouts(busy=0.2))
    migrate(store)
    team = Team.create(store, credit=100)
    is_locked, locked = store_workers.CONTEXT.Pipe(duplex=False)
    released, release = store_workers.CONTEXT.Pipe(duplex=False)
    process = store_workers.start(store_workers.lock, str(file), locked, released)
    assert is_locked.poll(30)
    with pytest.raises(StoreError, match=r"accounts\.db: database is locked"):
        store.apply([team.place("a")])
    store.ping()  # readers are not in the writer's way
    release.send(None)
    process.join(30)
    assert isinstance(store.apply([team.place("a")])[0], Placed)
    store.close()


async def test_what_waits_behind_a_locked_file_is_told_with_it(file: Path) -> None:
    store = Store(f"sqlite:///{file}", timeouts=Timeouts(busy=0.2))
    migrate(store)
    team = Team.create(store, credit=10**6)
    batches = Batches(store)
    other = Store(f"sqlite:///{file}")
    with other.writing():
        # Enough for several batches; after the first has failed, no other is tried.
        waiters = [batches.submit(team.place(str(number))) for number in range(1000)]
        for waiter in waiters:
            with pytest.raises(StoreError):
                await waiter
    assert isinstance(await batches.submit(team.place("again")), Placed)
    await batches.close()
    other.close()
    store.close()


@pytest.mark.parametrize("way", ["operators", "batches"])
def test_a_commit_is_on_the_disk_and_rows_belong_together(store: Store, way: str) -> None:
    """A test cannot cut the power. These settings make SQLite survive it, by its documentation."""
    database = cast("SQLite", store._database)
    connection = database._spare.connect() if way == "batches" else store.engine.raw_connection()
    driver = cast("sqlite3.Connection", connection.driver_connection)
    found = {
        name: driver.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "foreign_keys", "journal_mode")
    }
    connection.close()
    assert found == {"synchronous": 2, "foreign_keys": 1, "journal_mode": "wal"}


def test_files_are_for_their_owner_alone(file: Path) -> None:
    mask = os.umask(0)
    try:
        store = Store(f"sqlite:///{file}")
        migrate(store)
        team = Team.create(store, credit=100)
        assert store.apply([team.place("first")])
        modes = {path.name: path.stat().st_mode & 0o777 for path in file.parent.iterdir()}
    finally:
        os.umask(mask)
    store.close()
    assert modes == {file.name + end: 0o600 for end in ("", "-wal", "-shm", "-turns")}


def test_an_existing_file_keeps_its_mode(file: Path) -> None:
    file.touch()
    file.chmod(0o640)
    store = Store(f"sqlite:///{file}")
    migrate(store)
    store.close()
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("damage", ["text", "truncated", "zeroes"])
def test_a_corrupt_file_is_named_at_start(file: Path, damage: str) -> None:
    if damage == "text":
        file.write_bytes(b"this is not a database, but it is long enough for one\n" * 100)
    else:
        store = Store(f"sqlite:///{file}")
        migrate(store)
        store.close()
        content = file.read_bytes()
        if damage == "truncated":
            file.write_bytes(content[: len(content) // 2])
        else:
            file.write_bytes(content[:100] + b"\0" * (len(content) - 100))
    store = Store(f"sqlite:///{file}")
    with pytest.raises(StoreError, match=r"accounts\.db"):
        migrate(store)
    store.close()


@pytest.mark.parametrize("there", ["nothing", "another file"])
def test_a_file_that_is_taken_away_while_in_use_is_missed_at_once(
    store: Store, file: Path, tmp_path: Path, there: str
) -> None:
    team = Team.create(store, credit=100)
    store.apply([team.place("a")])
    aside = tmp_path / "aside.db"
    file.rename(aside)
    if there != "nothing":
        file.touch()
    with pytest.raises(StoreError, match=r"accounts\.db: the file was deleted, moved or replaced"):
        store.apply([team.settle("a")])
    for _ in range(2):
        with pytest.raises(StoreError, match="deleted, moved or replaced"):
            store.ping()
        store.close()  # the next connection is a new one
    assert file.exists() == (there != "nothing")

    file.unlink(missing_ok=True)
    aside.rename(file)
    assert store.apply([team.settle("a")]) == [Ended(state=HoldState.SETTLED, charged=10)]
    assert_sound(store)


def test_a_missing_directory_is_named_at_start(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/missing/accounts.db")
    with pytest.raises(StoreError, match=r"missing/accounts\.db: unable to open database file"):
        migrate(store)
    with pytest.raises(StoreError, match="unable to open"):
        store.apply([])
    store.close()


def _give_away(file: Path) -> int | None:
    """Give a file and its directory to another user, because root can write any file."""
    if os.geteuid() != 0:
        return None
    nobody = 65534
    os.chown(file.parent, nobody, nobody)
    if file.exists():
        os.chown(file, nobody, nobody)
    for parent in (file.parent, *file.parent.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    return nobody


def test_a_file_that_is_read_only_for_a_while_is_written_again() -> None:
    # Not in pytest's directories, which each run closes to other users.
    with TemporaryDirectory() as name:
        file = Path(name) / "accounts.db"
        store = Store(f"sqlite:///{file}")
        migrate(store)
        team = Team.create(store, credit=100)
        store.close()
        nobody = _give_away(file)
        said, answer = store_workers.CONTEXT.Pipe(duplex=False)
        with store.reading():  # as another service does
            process = store_workers.start(
                store_workers.write_after_read_only, nobody, file, team, answer
            )
            assert said.poll(30)
            applied, tried, pinged, *after = said.recv()
            process.join(30)
        for text in (applied, tried):
            assert "attempt to write a readonly database" in text
        assert pinged is None
        # The first call of each kind can find useless sessions, and must replace them.
        assert after[2:] == [None] * 6
        assert team.balance(store) == (100, 10)
        assert_sound(store)
        store.close()


@pytest.mark.parametrize("what", ["file", "directory", "file and directory"])
def test_a_read_only_place_is_named_at_start(store: Store, file: Path, what: str) -> None:
    store.close()
    if what == "directory":
        file.unlink()
    nobody = _give_away(file)
    if file.exists():
        file.chmod(0o400)
    if what != "file":
        file.parent.chmod(0o555)
    said, answer = store_workers.CONTEXT.Pipe(duplex=False)
    process = store_workers.start(store_workers.open_as, nobody, f"sqlite:///{file}", answer)
    try:
        assert said.poll(30)
        text = said.recv()
    finally:
        process.join(30)
        file.parent.chmod(0o755)
    assert text.startswith(f"{file}: ")
    assert "\n" not in text


def test_a_commit_whose_answer_is_lost_is_harmless(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Team.create(store, credit=15)
    lost: list[str] = []
    keep = Spare.keep

    def loses(spare: Spare, connection: sa.PoolProxiedConnection) -> None:
        keep(spare, connection)
        # After the COMMIT, before the outcome is returned.
        if lost:
            raise sqlite3.OperationalError(lost.pop())

    monkeypatch.setattr(Spare, "keep", loses)

    for operation in (team.place("a"), team.settle("a"), team.grant(5, "more")):
        lost.append("disk I/O error")
        with pytest.raises(StoreError, match="disk I/O error"):
            store.apply([operation])
        first = store.apply([operation])
        assert store.apply([operation]) == first
    assert lost == []
    assert team.balance(store) == (10, 0)
    assert entries(store) == [("a", 10)]
    assert_sound(store)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_jumps_an_hour_breaks_nothing(file: Path, hours: int) -> None:
    now = [1_800_000_000 * 10**9]
    store = Store(f"sqlite:///{file}", clock=lambda: now[0])
    migrate(store)
    team = Team.create(store, credit=1000, requests_per_minute=2)
    store.apply([team.place("a"), team.place("b")])
    now[0] += hours * HOUR
    refused = store.apply([team.place("c")])[0]
    if hours < 0:
        # No caller waits for an hour.
        assert isinstance(refused, Refused)
        assert 0 < refused.wait <= MINUTE
        now[0] += refused.wait
        assert isinstance(store.apply([team.place("d")])[0], Placed)
        assert store.expired() == []
        charged = store.apply([team.settle("a")])[0]
    else:
        assert isinstance(refused, Placed)
        # The leases have expired by that clock. The usage is still charged, once.
        store.apply(store.expired())
        charged = store.apply([team.settle("a"), team.settle("a")])[0]
    assert charged == Ended(state=HoldState.SETTLED, charged=10, lost=0)
    assert entries(store) == [("a", 10)]
    assert_sound(store)
    store.close()

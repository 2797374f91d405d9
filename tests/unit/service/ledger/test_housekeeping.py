import asyncio
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from process.log import JsonFormatter
from service.accounts.directory import Directory
from service.accounts.verification import differences
from service.ledger import housekeeping
from service.ledger.batches import Batches
from service.ledger.database import InThread
from service.ledger.history import History
from service.ledger.housekeeping import Housekeeping
from service.ledger.ids import hold_id
from service.ledger.journal import Journal
from service.ledger.migrations import migrate
from service.ledger.rows import Grant, Operation, Outcome, Place, Release, Settle
from service.ledger.schema import holds, ledger
from service.ledger.store import Store, StoreError
from tests.support.waiting import until

CREDIT = 10**9


class FaultyStore(Store):
    """A store that fails in one of four ways, on request."""

    fails: Exception | None = None
    reading_fails: Exception | None = None
    writing_fails: Exception | None = None
    """The exception of writes outside batches."""
    writings = 0
    spoilt: str = ""
    """The id of a hold whose ending cannot be applied."""
    batches: list[int]

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        self.batches.append(len(operations))
        if self.fails is not None:
            raise self.fails
        if any(isinstance(o, Settle) and o.hold_id == self.spoilt for o in operations):
            raise OverflowError("a number that the store cannot hold")
        return await super().applying(operations, in_thread)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        self.writings += 1
        if self.writing_fails is not None:
            raise self.writing_fails
        with super().writing() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        if self.reading_fails is not None:
            raise self.reading_fails
        with super().reading() as connection:
            yield connection


class Kept:
    """A store with an account, its journal, and the housekeeping of both."""

    def __init__(self, directory: Path) -> None:
        self.now = 10**18
        self.seconds = 100.0
        self.store = FaultyStore(f"sqlite:///{directory / 'db'}", clock=lambda: self.now)
        self.store.batches = []
        migrate(self.store)
        self.directory = Directory(self.store)
        self.account = self.directory.create_account("acme").id
        self.key = self.directory.create_key("acme", "ci")[0].id
        grant = Grant(account_id=self.account, amount=CREDIT, idempotency_id="1")
        self.store.apply([grant])
        self.batches = Batches(self.store)
        self.journal = Journal(str(directory / "journal"))
        self.told: list[bool] = []
        self.telling_fails = False
        self.lost: list[int] = []
        self.rejected: list[int] = []
        self.place_of_journal = directory / "journal"
        self.changed = asyncio.Event()
        self.housekeeping = Housekeeping(
            self.store,
            self.batches,
            self.journal,
            self._changed,
            self.lost.append,
            rejected=self.rejected.append,
            clock=lambda: self.seconds,
        )

    async def _changed(self, there: bool) -> None:
        self.told.append(there)
        if self.telling_fails:
            self.telling_fails = False
            raise RuntimeError("nobody listens")
        self.changed.set()

    async def next_change(self) -> bool:
        async with asyncio.timeout(10):
            await self.changed.wait()
        self.changed.clear()
        return self.told[-1]

    def place(self, number: int, *, amount: int = 100, lease: int = 10**9) -> None:
        place = Place(
            hold_id=f"hold-{number}",
            account_id=self.account,
            key_id=self.key,
            amount=amount,
            tokens=1,
            model="default",
            owner="test",
            lease=lease,
        )
        self.store.apply([place])

    def settle(self, number: int, charge: int = 30) -> Settle:
        return Settle(
            hold_id=f"hold-{number}",
            account_id=self.account,
            key_id=self.key,
            charge=charge,
            prompt_tokens=1,
            completion_tokens=2,
        )

    @property
    def set_aside(self) -> list[str]:
        """The holds of the rejected settlements; the line, if it is not an ending."""
        lines = [
            line
            for path in self.place_of_journal.glob("*.rejected")
            for line in path.read_text().splitlines()
        ]
        return [json.loads(line)["hold_id"] if "hold_id" in line else line for line in lines]

    @property
    def balance(self) -> int:
        return int(self.directory.account("acme").balance)

    @property
    def held(self) -> int:
        return int(self.directory.account("acme").held)

    async def close(self) -> None:
        await self.batches.close()
        self.journal.close()
        self.store.close()


@pytest.fixture
async def kept(tmp_path: Path) -> Any:
    made = Kept(tmp_path)
    yield made
    await made.close()


AWAY = StoreError("the store is away")


async def test_the_journal_is_replayed_once(kept: Kept) -> None:
    for number in range(3):
        kept.place(number)
    kept.journal.append(kept.settle(0))
    kept.journal.append(kept.settle(0))
    kept.journal.append(kept.settle(1))
    kept.journal.append(Release(hold_id="hold-2", account_id=kept.account, key_id=kept.key))

    assert await kept.housekeeping.round()
    assert kept.journal.is_empty()
    assert (kept.balance, kept.held) == (CREDIT - 60, 0)
    assert await kept.housekeeping.round()
    assert kept.balance == CREDIT - 60


async def test_replaying_again_what_was_not_forgotten_changes_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.place(0)
    kept.journal.append(kept.settle(0))
    with monkeypatch.context() as killed:
        killed.setattr(kept.journal, "forget", lambda _: False)
        assert await kept.housekeeping.round()
    assert not kept.journal.is_empty()
    assert kept.balance == CREDIT - 30

    assert await kept.housekeeping.round()
    assert kept.journal.is_empty()
    assert kept.balance == CREDIT - 30
    assert list(differences(kept.store)) == []


async def test_nothing_is_forgotten_while_the_store_is_away(kept: Kept) -> None:
    kept.place(0)
    kept.journal.append(kept.settle(0))
    kept.store.fails = AWAY

    assert not await kept.housekeeping.round()
    with pytest.raises(StoreError):
        await kept.housekeeping.replay()
    assert kept.journal.kept().endings == [kept.settle(0)]


async def test_what_is_kept_during_a_replay_is_replayed_next(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.place(0)
    kept.place(1)
    kept.journal.append(kept.settle(0))
    read = kept.journal.kept

    def then_another() -> Any:
        found = read()
        kept.journal.append(kept.settle(1))
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(kept.journal, "kept", then_another)
        assert await kept.housekeeping.round()
    assert not kept.journal.is_empty()
    assert await kept.housekeeping.round()

    assert kept.journal.is_empty()
    assert (kept.balance, kept.held) == (CREDIT - 60, 0)


async def test_a_long_journal_is_few_transactions(kept: Kept) -> None:
    for number in range(300):
        kept.place(number)
        kept.journal.append(kept.settle(number))
    kept.store.batches.clear()

    assert await kept.housekeeping.round()
    assert (kept.balance, kept.held) == (CREDIT - 300 * 30, 0)
    assert len(kept.store.batches) <= 8


async def test_an_end_that_cannot_be_applied_stops_no_other(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        kept.place(number)
        kept.journal.append(kept.settle(number))
    kept.store.spoilt = "hold-1"

    assert await kept.housekeeping.round()
    assert kept.journal.is_empty()
    assert (kept.balance, kept.held) == (CREDIT - 60, 100)
    assert "an operation failed" in caplog.text
    assert kept.set_aside == ["hold-1"]


async def test_leases_run_out_although_the_journal_cannot_be_written(kept: Kept) -> None:
    kept.place(0, lease=1)
    kept.journal.append(kept.settle(1))  # of an unknown hold: it will be rejected
    shutil.rmtree(kept.place_of_journal)
    kept.now += 2

    assert await kept.housekeeping.round()
    assert kept.held == 0


async def test_a_round_that_fails_in_an_unknown_way_is_not_the_last(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "INTERVAL", 0.0)
    kept.telling_fails = True
    kept.store.fails = AWAY
    run = asyncio.create_task(kept.housekeeping.run())
    while kept.told != [False, False]:
        await kept.next_change()
    kept.store.fails = None
    while kept.told != [False, False, True]:
        await kept.next_change()
    run.cancel()
    await asyncio.wait((run,))


# ------------------------------------------------------------------------------------- rejected


async def test_a_charge_whose_hold_the_store_does_not_know_is_set_aside(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.place(0)
    for number in range(3):
        kept.journal.append(kept.settle(number))
    # Nothing is lost with this settlement.
    kept.journal.append(Release(hold_id="hold-7", account_id=kept.account, key_id=kept.key))

    assert await kept.housekeeping.round()
    assert await kept.housekeeping.round()
    assert kept.journal.is_empty()
    assert kept.balance == CREDIT - 30
    assert kept.set_aside == ["hold-1", "hold-2"]
    assert kept.rejected == [2]
    assert [r.levelname for r in caplog.records if r.message == "settlements rejected"] == ["ERROR"]


async def test_a_line_that_cannot_be_read_is_set_aside_and_stops_no_other(kept: Kept) -> None:
    kept.place(0)
    unreadable = ["{}", '{"kind":"release","hold_id":"x","account_id":9223372036854775808}']
    os.write(kept.journal._file, "".join(f"{line}\n" for line in unreadable).encode())
    kept.journal.append(kept.settle(0))

    assert await kept.housekeeping.round()
    assert kept.journal.is_empty()
    assert kept.balance == CREDIT - 30
    assert kept.set_aside == ["{}", "x"]
    assert kept.rejected == [2]


async def test_what_could_not_be_forgotten_is_set_aside_and_told_once(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.journal.append(kept.settle(0))
    with monkeypatch.context() as busy:
        busy.setattr(kept.journal, "forget", lambda _: False)
        for _ in range(3):
            assert await kept.housekeeping.round()
    assert not kept.journal.is_empty()
    assert await kept.housekeeping.round()

    assert kept.journal.is_empty()
    assert kept.set_aside == ["hold-0"]
    assert kept.rejected == [1]


def full(*_: object) -> None:
    raise OSError("No space left on device")


async def test_nothing_is_forgotten_that_cannot_be_set_aside(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.journal.append(kept.settle(0))
    kept.journal.unwritten.add(kept.settle(1))
    with monkeypatch.context() as disk:
        disk.setattr(kept.journal, "set_aside", full)
        disk.setattr(kept.journal, "append", full)
        assert await kept.housekeeping.round()
    assert kept.journal.kept().endings == [kept.settle(0)]
    assert kept.journal.unwritten.endings() == [kept.settle(1)]
    assert await kept.housekeeping.round()

    assert sorted(kept.set_aside) == ["hold-0", "hold-1"]
    assert sum(kept.rejected) == 2


# ------------------------------------------------------------------------------------ in memory


async def test_the_store_takes_what_only_memory_has_though_the_disk_is_full(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.place(0)
    kept.journal.unwritten.add(kept.settle(0))
    monkeypatch.setattr(kept.journal, "append", full)
    monkeypatch.setattr(kept.journal, "kept", full)

    assert await kept.housekeeping.round()
    assert (kept.balance, kept.held) == (CREDIT - 30, 0)
    assert kept.journal.unwritten.endings() == []


async def test_the_journal_takes_what_only_memory_has_though_the_store_is_away(kept: Kept) -> None:
    for number in range(3):
        kept.place(number)
        kept.journal.unwritten.add(kept.settle(number))
    kept.store.fails = AWAY

    assert not await kept.housekeeping.round()
    assert kept.journal.unwritten.endings() == []
    assert kept.journal.kept().endings == [kept.settle(number) for number in range(3)]
    kept.store.fails = None
    assert await kept.housekeeping.round()
    assert (kept.balance, kept.held) == (CREDIT - 90, 0)


async def test_what_neither_takes_stays_in_memory(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.place(0)
    kept.journal.unwritten.add(kept.settle(0))
    kept.store.fails = AWAY
    monkeypatch.setattr(kept.journal, "append", full)
    for _ in range(3):
        assert not await kept.housekeeping.round()
    assert kept.journal.unwritten.endings() == [kept.settle(0)]
    kept.store.fails = None
    assert await kept.housekeeping.round()

    assert (kept.balance, kept.held) == (CREDIT - 30, 0)
    assert kept.journal.unwritten.endings() == []


async def test_the_loop_never_waits_for_the_disk(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, int] = {}

    def watch(name: str) -> None:
        run = getattr(kept.journal, name)

        def watched(*arguments: Any) -> Any:
            threads[name] = threading.get_ident()
            return run(*arguments)

        monkeypatch.setattr(kept.journal, name, watched)

    names = ("is_empty", "kept", "set_aside", "forget", "append")
    kept.journal.append(kept.settle(0))
    for name in names:
        watch(name)
    assert await kept.housekeeping.round()
    kept.journal.unwritten.add(kept.settle(1))
    kept.store.fails = AWAY
    assert not await kept.housekeeping.round()

    assert set(threads) == set(names)
    assert threading.get_ident() not in threads.values()


# --------------------------------------------------------------------------------------- others


async def test_what_a_replay_could_not_take_is_told(kept: Kept) -> None:
    kept.place(0, amount=100)
    kept.journal.append(kept.settle(0, charge=140))

    assert await kept.housekeeping.round()
    assert kept.lost == [40]
    assert kept.balance == CREDIT - 100


async def test_holds_end_with_their_lease(kept: Kept) -> None:
    kept.place(0, lease=10)
    kept.place(1, lease=20)
    assert await kept.housekeeping.round()
    assert kept.held == 200
    kept.now += 10
    assert await kept.housekeeping.round()
    assert kept.held == 100
    kept.now += 10
    assert await kept.housekeeping.round()
    assert (kept.balance, kept.held) == (CREDIT, 0)


async def test_a_round_deletes_the_holds_that_ended_thirty_days_ago(kept: Kept) -> None:
    def left() -> int:
        with kept.store.reading() as connection:
            return len(connection.execute(sa.select(holds.c.id)).all())

    hold = {"hold_id": hold_id(kept.now), "account_id": kept.account, "key_id": kept.key}
    place: dict[str, Any] = {"amount": 100, "tokens": 1, "model": "default", "owner": "test"}
    kept.store.apply([Place(**hold, **place, lease=10**9)])
    kept.store.apply([Release(**hold)])
    kept.now += 30 * 24 * 3600 * 10**9
    assert await kept.housekeeping.round()
    assert left() == 1
    kept.now += 10**9
    assert await kept.housekeeping.round()
    assert left() == 0


async def test_a_lease_that_ran_out_during_an_outage_is_settled_all_the_same(kept: Kept) -> None:
    kept.place(0, lease=10)
    kept.journal.append(kept.settle(0))
    kept.now += 10**12

    assert await kept.housekeeping.round()
    assert (kept.balance, kept.held) == (CREDIT - 30, 0)


async def test_a_store_that_can_only_be_read_is_away(kept: Kept) -> None:
    kept.store.fails = AWAY
    kept.store.ping()

    assert not await kept.housekeeping.round()


async def test_a_store_that_can_only_be_written_is_away(kept: Kept) -> None:
    kept.store.reading_fails = AWAY

    assert not await kept.housekeeping.round()


async def test_a_store_that_failed_is_away_until_it_can_be_written(kept: Kept) -> None:
    assert await kept.housekeeping.round()
    before = kept.store.writings
    kept.store.fails = AWAY
    with pytest.raises(StoreError):
        await kept.batches.submit(kept.settle(1))
    kept.store.fails = None
    # From now on, the store responds but rejects writes, like a full disk.
    kept.store.writing_fails = StoreError("database or disk is full")
    assert [await kept.housekeeping.round() for _ in range(3)] == [False] * 3
    kept.store.writing_fails = None
    assert [await kept.housekeeping.round() for _ in range(3)] == [True] * 3

    # After a successful write, an idle service writes nothing.
    assert kept.store.writings == before + 4
    assert [account.name for account in kept.directory.accounts()] == ["acme"]
    assert kept.balance == CREDIT


async def test_changes_are_told_once_each(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(housekeeping, "INTERVAL", 0)
    running = asyncio.create_task(kept.housekeeping.run())
    kept.store.fails = AWAY
    assert await kept.next_change() is False
    kept.store.fails = None
    assert await kept.next_change() is True
    kept.store.fails = AWAY
    assert await kept.next_change() is False
    running.cancel()
    await asyncio.wait((running,))

    assert running.cancelled()
    assert kept.told == [False, True, False]
    away = [record for record in caplog.records if record.message == "store is away"]
    assert len(away) == 2
    assert str(AWAY) in JsonFormatter().format(away[0])
    assert caplog.text.count("store is back") == 1


async def test_the_log_repeats_why_the_store_is_away_once_a_minute(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "INTERVAL", 0)
    running = asyncio.create_task(kept.housekeeping.run())
    kept.store.fails = AWAY
    assert await kept.next_change() is False

    async def later(seconds: float) -> None:
        kept.seconds += seconds
        rounds = len(kept.store.batches) + 3
        await until(lambda: len(kept.store.batches) > rounds)

    def lines() -> list[str]:
        return [
            JsonFormatter().format(record)
            for record in caplog.records
            if record.message == "store is still away"
        ]

    await later(59.0)
    assert lines() == []
    kept.store.fails = StoreError("another reason")
    await later(0.0)  # the round that runs has the former reason
    await later(2.0)
    await later(58.0)
    (line,) = lines()
    assert '"seconds": 61' in line.replace('":', '": ').replace("  ", " ")
    assert "another reason" in line
    await later(3.0)
    assert len(lines()) == 2
    running.cancel()
    await asyncio.wait((running,))


async def test_a_round_notices_that_the_ledger_has_lost_an_entry(
    kept: Kept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(kept.store, str(tmp_path), clock=lambda: kept.seconds)
    remembering = Housekeeping(
        kept.store, kept.batches, kept.journal, kept._changed, kept.lost.append, history=history
    )
    assert await remembering.round()
    assert "store has forgotten charges" not in caplog.text
    with kept.store.writing() as connection:
        connection.execute(sa.delete(ledger))
    assert await remembering.round()
    assert caplog.text.count("store has forgotten charges") == 1


async def test_what_is_unforeseen_does_not_end_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "INTERVAL", 0)
    kept.store.reading_fails = KeyError("a defect")
    assert await kept.housekeeping.round()
    assert "housekeeping failed" in caplog.text
    running = asyncio.create_task(kept.housekeeping.run())
    kept.store.fails = AWAY
    assert await kept.next_change() is False
    running.cancel()
    await asyncio.wait((running,))


async def test_a_store_that_does_not_answer_is_away(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()

    async def never(*_: object) -> None:
        await loop.create_future()

    with monkeypatch.context() as silent:
        silent.setattr(housekeeping, "PATIENCE", 0.01)
        silent.setattr(kept.batches, "submit", lambda _: loop.create_future())
        assert not await kept.housekeeping.round()
    with monkeypatch.context() as silent:
        silent.setattr(housekeeping, "PATIENCE", 0.01)
        silent.setattr(kept.batches, "call", never)
        silent.setattr(kept.batches, "submit", _done)
        assert not await kept.housekeeping.round()
    assert await kept.housekeeping.round()


async def test_silence_is_told_as_such(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(housekeeping, "PATIENCE", 0.01)
    with monkeypatch.context() as silent:
        silent.setattr(kept.batches, "submit", lambda _: loop.create_future())
        running = asyncio.create_task(kept.housekeeping.run())
        assert await kept.next_change() is False
        running.cancel()
        await asyncio.wait((running,))

    (record,) = caplog.records
    assert json.loads(JsonFormatter().format(record))["why"] == "it does not answer"


def _done(_: Operation) -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future

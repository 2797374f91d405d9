"""SIGKILL at random points under load: every acknowledged operation is stored once."""

import os
import random
import time
from collections import Counter
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from service.ledger.migrations import migrate
from service.ledger.rows import HoldState
from service.ledger.schema import holds
from service.ledger.store import Store
from tests.faults import store_workers
from tests.faults.stores import SECOND, Team, assert_sound, entries, migrated
from tests.support import examples

__all__ = ["migrated"]

KILLS = examples.number(200, os.environ)
CREDIT = 10**12
LEASE = 2 * SECOND


def _kill(process: ForkServerProcess) -> None:
    process.kill()
    process.join(10)
    process.close()


@pytest.mark.time_limit(300)
def test_sigkill_at_random_points_loses_and_doubles_nothing(
    database: str, migrated: Store, tmp_path: Path
) -> None:
    team = Team.create(migrated, credit=CREDIT)
    journal = tmp_path / "acknowledged"
    chance = random.Random(20)  # noqa: S311  (a test's)
    for number in range(KILLS):
        # Two at a time, so that a living process meets the remains of a killed one.
        workers = []
        ready = []
        for _ in range(2 if number % 10 == 0 else 1):
            mine, theirs = store_workers.CONTEXT.Pipe(duplex=False)
            workers.append(
                store_workers.start(
                    store_workers.work_until_killed, database, team, journal, theirs
                )
            )
            theirs.close()
            ready.append(mine)
        assert wait(ready, 30) != []
        time.sleep(chance.uniform(0, 0.05))  # the random point
        for process in workers:
            _kill(process)
        for one in ready:
            one.close()
        if number % 20 == 0:
            assert_sound(migrated)
    _assert_kept(migrated, team, journal)
    _assert_leases_end(migrated, team, database)


def _assert_kept(store: Store, team: Team, journal: Path) -> None:
    # A note has an end mark, because the kill may have cut it.
    lines = journal.read_text().splitlines()
    notes = [line.split()[:-1] for line in lines if line.endswith(" .")]
    placed = {words[1] for words in notes if words[0] == "placed"}
    asked = {words[1]: int(words[2]) for words in notes if words[0] == "settling"}
    settled = {words[1]: int(words[2]) for words in notes if words[0] == "settled"}
    assert len(settled) > 5 * KILLS
    charged = entries(store)
    # Each once, and no others.
    assert max(Counter(hold_id for hold_id, _ in charged).values()) == 1
    assert dict(charged).items() >= settled.items()
    assert asked.items() >= dict(charged).items()
    with store.engine.connect() as connection:
        assert {row.id for row in connection.execute(holds.select())} >= placed
    assert team.balance(store)[0] == CREDIT - sum(charge for _, charge in charged)
    assert_sound(store)


def _assert_leases_end(store: Store, team: Team, url: str) -> None:
    """Assert that everything is held until the leases expire, and nothing afterwards."""
    if store.engine.dialect.name == "sqlite":
        later = Store(url, clock=lambda: time.time_ns() + LEASE)
    else:
        later = store
        with store.engine.connect() as connection:
            last = max(row.lease_until for row in connection.execute(holds.select()))
        while True:
            with store.engine.connect() as connection:
                left = (last - store.now(connection)) / SECOND
            if left <= 0:
                break
            time.sleep(left)  # a test cannot move the server's clock
    while expired := later.expired():
        later.apply(expired)
    assert team.balance(store)[1] == 0
    with store.engine.connect() as connection:
        ended = [row.state for row in connection.execute(holds.select())]
    assert HoldState.OPEN not in ended
    assert_sound(store)
    if later is not store:
        later.close()


@pytest.mark.parametrize("state", ["before", "after"])
def test_a_lease_ends_when_it_is_over_and_not_before(tmp_path: Path, state: str) -> None:
    now = [10**18]
    store = Store(f"sqlite:///{tmp_path}/a.db", clock=lambda: now[0])
    migrate(store)
    team = Team.create(store, credit=100)
    store.apply([team.place("a", lease=2)])
    now[0] += LEASE if state == "after" else LEASE - 1
    assert store.expired() == ([team.expire("a")] if state == "after" else [])
    store.apply([team.expire("a")])
    assert team.balance(store) == (100, 0 if state == "after" else 10)
    store.close()

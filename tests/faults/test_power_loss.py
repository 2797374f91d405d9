"""The power fails: no charge is lost or doubled, and nothing stays held."""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from service.ledger.rows import Ended, HoldState, Place, Settle
from service.ledger.store import Store
from tests.faults import power_loss
from tests.faults.power_loss import CREDIT, Step
from tests.faults.stores import SECOND, Team, assert_sound, entries

_MEMORY = Path("/dev/shm")  # noqa: S108  (a new directory is created there)
LATER = power_loss.BEGINNING + 3600 * SECOND


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sequence[Step], Team]:
    if shutil.which("cc") is None:
        if "CI" in os.environ:
            pytest.fail("cc is not here")
        pytest.skip("cc is not here")
    directory = tmp_path_factory.mktemp("power")
    steps = power_loss.record(directory)
    account_id, key_id, created_at = json.loads((directory / "team").read_text())
    return steps, Team(account_id=account_id, key_id=key_id, created_at=created_at)


def test_a_settlement_is_flushed_and_a_hold_alone_is_not(
    recorded: tuple[Sequence[Step], Team],
) -> None:
    kinds = Counter(
        (bool(after.settled), after.flushed.log != before.flushed.log)
        for before, after in pairwise(recorded[0])
        if after.settled or after.placed
    )
    assert (True, False) not in kinds
    # Some holds are flushed too: when SQLite copies the log to the database.
    assert kinds[False, False] > 10


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory, in memory if possible: hundreds of stores are checked."""
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=_MEMORY) as name:
        yield Path(name)


@pytest.mark.time_limit(300)
def test_a_power_loss_at_any_point_loses_no_charge_and_leaks_no_hold(
    recorded: tuple[Sequence[Step], Team], directory: Path
) -> None:
    steps, team = recorded
    chance = random.Random(4)  # noqa: S311  (a test's)
    settled: dict[str, int] = {}
    placed: list[Place] = []
    lost = 0
    for before, after in pairwise(steps):
        settled |= _charges(before.settled)
        placed += before.placed
        for files in power_loss.remains(before, after, chance):
            store = Store(files.write(directory), clock=lambda: LATER)
            charged = dict(entries(store))
            assert charged.items() >= settled.items()
            assert {**settled, **_charges(after.settled)}.items() >= charged.items()
            assert_sound(store)
            lost += _assert_replayed(store, team, placed)
            store.close()
    assert lost > 100  # holds that were placed, and were not on disk


def _charges(settled: Sequence[Settle]) -> dict[str, int]:
    return {settle.hold_id: settle.charge for settle in settled}


def _assert_replayed(store: Store, team: Team, placed: Sequence[Place]) -> int:
    """Replay a journal with the settlements of all other calls, and return the lost holds."""
    charged = dict(entries(store))
    expired = store.expired()
    store.apply(expired)
    journal = [
        team.settle(place.hold_id, 1, place=place)
        for place in placed
        if place.hold_id not in charged
    ]
    first = store.apply(journal)
    assert store.apply(journal) == first
    assert first == [Ended(state=HoldState.SETTLED, charged=1)] * len(journal)
    assert entries(store)[len(charged) :] == [(settle.hold_id, 1) for settle in journal]
    assert team.balance(store) == (CREDIT - sum(charged.values()) - len(journal), 0)
    assert_sound(store)
    return len(_charges(journal).keys() - {expire.hold_id for expire in expired})

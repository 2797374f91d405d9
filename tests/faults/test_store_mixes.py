"""Batches with every mix of operations, because each mix has its own SQL statements."""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

import pytest
import sqlalchemy as sa

from service.ledger.rows import HoldState, Operation
from service.ledger.schema import api_keys, holds, metadata
from service.ledger.store import Store
from tests.faults.stores import Team, assert_sound, entries, migrated

__all__ = ["migrated"]

CREDIT: Final = 10**6
HELD: Final = 10
KINDS: Final = ("place", "settle", "release", "expire", "grant")
MIXES: Final = [mix for size in range(1, 6) for mix in combinations(KINDS, size)]
ENDS: Final = {
    "place": HoldState.OPEN,
    "settle": HoldState.SETTLED,
    "release": HoldState.RELEASED,
    "expire": HoldState.EXPIRED,
}


def operations(team: Team, mix: Sequence[str], times: int) -> tuple[list[Operation], list[str]]:
    """Return the operations of a mix, and the ids of the holds that must exist before."""
    all_: list[Operation] = []
    before: list[str] = []
    for number in range(times):
        of: dict[str, Operation] = {
            "place": team.place(f"place-{number}", HELD),
            "settle": team.settle(f"settle-{number}", 7),
            "release": team.release(f"release-{number}"),
            "expire": team.expire(f"expire-{number}"),
            "grant": team.grant(5, f"grant-{number}"),
        }
        all_ += (of[kind] for kind in mix)
        before += (f"{kind}-{number}" for kind in mix if kind not in {"place", "grant"})
    return all_, before


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("mix", MIXES, ids="-".join)
def test_each_mix_of_operations_is_written(migrated: Store, mix: Sequence[str], times: int) -> None:
    team = Team.create(migrated, credit=CREDIT)
    together, before = operations(team, mix, times)
    if before:
        migrated.apply([team.place(id_, HELD, lease=0) for id_ in before])

    first = migrated.apply(together)
    balance = CREDIT + times * (5 * ("grant" in mix) - 7 * ("settle" in mix))
    assert team.balance(migrated) == (balance, times * HELD * ("place" in mix))
    assert entries(migrated) == [(id_, 7) for id_ in before if id_.startswith("settle")]
    with migrated.engine.connect() as connection:
        found = connection.execute(sa.select(holds.c.id, holds.c.state, holds.c.ended_at)).all()
        running = connection.execute(sa.select(api_keys.c.running)).scalar_one()
    assert {row.id: row.state for row in found} == {
        f"{kind}-{number}": ENDS[kind] for kind in mix if kind in ENDS for number in range(times)
    }
    assert all((row.ended_at is None) == (row.state == HoldState.OPEN) for row in found)
    assert running == times * ("place" in mix)
    assert_sound(migrated)

    again = migrated.apply(together)
    assert [type(outcome) for outcome in again] == [type(outcome) for outcome in first]
    assert team.balance(migrated)[0] == balance
    assert_sound(migrated)


def test_what_is_written_to_try_the_store_is_taken_back(migrated: Store) -> None:
    team = Team.create(migrated, credit=CREDIT)
    migrated.apply([team.place("a", HELD)])
    before = _rows(migrated)
    migrated.try_writing()
    migrated.try_writing()
    assert _rows(migrated) == before


def _rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    with store.engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table))]
            for table in metadata.sorted_tables
        }

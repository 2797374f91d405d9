"""Only holds that ended long ago are deleted, some at a time."""

import pytest
import sqlalchemy as sa

from service.ledger.decisions import KEPT
from service.ledger.ids import hold_id
from service.ledger.rows import Ended, Operation
from service.ledger.schema import holds
from service.ledger.store import Store
from tests.faults.stores import Team, entries, migrated

__all__ = ["migrated"]

DAY = 24 * 3600 * 10**9


def test_a_hold_is_kept_for_thirty_days() -> None:
    assert KEPT == 2_592_000_000_000_000


def _names(store: Store) -> set[str]:
    with store.engine.connect() as connection:
        return set(connection.execute(sa.select(holds.c.id)).scalars())


def _age(store: Store, name: str, ended_at: int | None) -> None:
    """Change the time at which a hold ended."""
    with store.writing() as connection:
        connection.execute(sa.update(holds).where(holds.c.id == name).values(ended_at=ended_at))


def _now(store: Store) -> int:
    with store.reading() as connection:
        return store.now(connection)


def test_only_what_ended_long_ago_goes(migrated: Store) -> None:
    team = Team.create(migrated, credit=1000)
    now = _now(migrated)
    old, recent = now - KEPT - DAY, now - DAY
    ids = {
        name: hold_id(made)
        for name, made in (
            *(("settled", old), ("released", old), ("expired", old), ("open", old)),
            *(("old, ended lately", old), ("recent", recent)),
        )
    }
    migrated.apply(
        [team.place(id_, lease=0 if name == "expired" else 60) for name, id_ in ids.items()]
    )
    ending: list[Operation] = [
        team.settle(ids[name]) for name in ("settled", "old, ended lately", "recent")
    ]
    migrated.apply([*ending, team.release(ids["released"]), team.expire(ids["expired"])])
    for name in ("settled", "released", "expired"):
        _age(migrated, ids[name], now - KEPT - DAY // 2)

    assert migrated.prune() == 3
    assert migrated.prune() == 0
    left = {ids["open"], ids["old, ended lately"], ids["recent"]}
    assert _names(migrated) == left
    # A settlement that comes later still finds nothing to charge, and charges nothing twice.
    (ended,) = migrated.apply([team.settle(ids["settled"])])
    assert ended == Ended(state=None)
    assert len(entries(migrated)) == 3


def test_a_round_deletes_a_bounded_number(migrated: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ledger.store._PRUNED_AT_ONCE", 10)
    team = Team.create(migrated, credit=1000)
    old = _now(migrated) - KEPT - DAY
    ids = [hold_id(old + number) for number in range(25)]
    migrated.apply([*map(team.place, ids), *map(team.settle, ids)])
    for name in ids:
        _age(migrated, name, old)
    assert [migrated.prune() for _ in range(4)] == [10, 10, 5, 0]
    assert team.balance(migrated) == (1000 - 250, 0)
    assert len(entries(migrated)) == 25

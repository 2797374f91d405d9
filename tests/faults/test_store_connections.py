"""Connections of a store: no failure leaks one."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.ledger import sqlite
from service.ledger.rows import Placed
from service.ledger.schema import accounts
from service.ledger.store import Store, StoreError
from tests.faults.stores import Team, migrated

__all__ = ["migrated"]


def test_what_is_in_use_when_all_are_closed_is_closed_after_it(migrated: Store) -> None:
    team = Team.create(migrated, credit=100)
    for number in range(5):
        with migrated.reading():
            migrated.apply([team.place(f"hold-{number}")])
            migrated.close()
    migrated.close()
    assert migrated._open == set()


def test_what_connects_while_all_are_closed_is_closed_after_it(migrated: Store) -> None:
    migrated.close()
    sa.event.listen(migrated.engine, "do_connect", lambda *_: migrated.close(), once=True)
    migrated.ping()
    assert migrated._open == set()


def test_what_is_kept_is_closed_with_the_others(migrated: Store) -> None:
    Team.create(migrated, credit=100)
    assert migrated._open != set()
    migrated.close()
    assert migrated._open == set()


def test_what_failed_holds_no_lock_although_the_error_is_kept(migrated: Store) -> None:
    team = Team.create(migrated, credit=100)
    kept: list[object] = []

    def fail() -> None:
        with migrated.writing() as connection:
            locked = sa.update(accounts).values(held=accounts.c.held).returning(accounts.c.id)
            kept.append(connection.execute(locked))
            connection.exec_driver_sql("SELECT what_is_not_there")

    with pytest.raises(StoreError) as raised:
        fail()
    assert isinstance(migrated.apply([team.place("a")])[0], Placed)
    kept.append(raised.value)  # until now
    migrated.close()


def test_what_cannot_be_prepared_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'db'}")

    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(sqlite, "_log_ahead", fails)
        for _ in range(5):
            with pytest.raises(StoreError, match="disk I/O error"):
                store.ping()
    assert len(store._open) == 1  # until the next one comes
    with store.reading():
        assert len(store._open) == 1
    store.close()

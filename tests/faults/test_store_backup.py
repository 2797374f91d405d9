"""Copies of a SQLite store."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.accounts.backup import Backup, back_up
from service.accounts.terminal import CommandError
from service.ledger.journal import Journal
from service.ledger.migrations import migrate
from service.ledger.schema import accounts
from service.ledger.store import Store
from tests.faults.stores import Team, assert_sound, entries


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/db")
    migrate(made)
    yield made
    made.close()


def test_a_copy_has_the_charges_of_the_journal_once(store: Store, tmp_path: Path) -> None:
    team = Team.create(store, credit=100)
    store.apply([team.place("settled"), team.settle("settled"), team.place("open")])
    journal = Journal(str(tmp_path / "journal"))
    # In both; its hold is in the store; its hold is not, because a power loss undid it.
    journal.append(team.settle("settled"), team.settle("open", 7), team.settle("lost", 5))
    file = tmp_path / "backup"
    found = back_up(store, file, journal=str(tmp_path / "journal"))
    assert found == Backup(accounts=1, entries=4, from_journal=3)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    copy = Store(f"sqlite:///{file}")
    assert team.balance(copy) == (100 - 10 - 7 - 5, 0)
    assert_sound(copy)
    # The journal is replayed after a restore.
    copy.apply([team.settle("settled"), team.settle("open", 7), team.settle("lost", 5)])
    assert team.balance(copy) == (100 - 10 - 7 - 5, 0)
    copy.close()
    # The store and the journal are as they were.
    assert entries(store) == [("settled", 10)]
    assert len(journal.kept().endings) == 3
    journal.close()


def test_nothing_is_left_beside_a_copy(store: Store, tmp_path: Path) -> None:
    Team.create(store, credit=100)
    place = tmp_path / "backups"
    place.mkdir()
    back_up(store, place / "one", journal=str(tmp_path / "absent"))
    assert [path.name for path in place.iterdir()] == ["one"]


def test_an_existing_file_is_not_replaced(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    file.write_text("precious")
    with pytest.raises(CommandError, match="exists"):
        back_up(store, file, journal=str(tmp_path))
    assert file.read_text() == "precious"


def test_a_file_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot write"):
        back_up(store, tmp_path / "absent" / "backup", journal=str(tmp_path))


def test_a_store_whose_balances_are_wrong_is_not_backed_up(store: Store, tmp_path: Path) -> None:
    Team.create(store, credit=100)
    with store.writing() as connection:
        connection.execute(sa.update(accounts).values(balance=99))
    place = tmp_path / "backups"
    place.mkdir()
    with pytest.raises(CommandError, match="'acme' does not match the ledger"):
        back_up(store, place / "one", journal=str(tmp_path))
    assert list(place.iterdir()) == []

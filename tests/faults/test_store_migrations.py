"""The schema over time, on both engines."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from service.accounts.directory import Directory
from service.accounts.verification import differences
from service.ledger import migrations
from service.ledger.migrations import HEAD, migrate
from service.ledger.schema import accounts, api_keys, ledger, metadata
from service.ledger.store import Store, StoreError
from service.ledger.usage import HOUR
from tests.faults.store_workers import Crew, migrate_once
from tests.faults.stores import migrated

__all__ = ["migrated"]


@pytest.fixture(params=["at once", "by revisions"])
def made(request: pytest.FixtureRequest, database: str) -> Iterator[Store]:
    """A store whose tables were created in one of the two ways."""
    store = Store(database)
    if request.param == "at once":
        migrate(store)
    else:
        with store.writing() as connection:
            migrations._upgrade(store, connection)
    yield store
    store.close()


def test_the_schema_is_the_declared_one(made: Store) -> None:
    with made.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD
        checks = {
            (table, check["name"])
            for table in metadata.tables
            for check in sa.inspect(connection).get_check_constraints(table)
        }
    # Properties that the comparison above ignores.
    assert checks == {
        (table.name, constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }


def test_both_ways_make_the_same_tables_on_sqlite(tmp_path: Path) -> None:
    def definitions(name: str, make: Callable[[Store], None]) -> set[str]:
        store = Store(f"sqlite:///{tmp_path}/{name}")
        make(store)
        with store.engine.connect() as connection:
            found = connection.execute(sa.text("SELECT sql FROM sqlite_master WHERE sql > ''"))
            texts = {" ".join(sorted(re.split(r"[\s,()]+", row[0]))) for row in found}
        store.close()
        return texts

    def by_revisions(store: Store) -> None:
        with store.writing() as connection:
            migrations._upgrade(store, connection)

    assert definitions("at_once", migrate) == definitions("by_revisions", by_revisions)


def _entry(amount: int, at: int, prompt: int, completion: int) -> dict[str, int]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"amount": amount, "created_at": at, **counts}


def test_usage_is_summed_up_of_a_ledger_that_was_there_before(database: str) -> None:
    store = Store(database)
    with store.writing() as connection:
        migrations._upgrade(store, connection, "0001")
        owner = {"account_id": 1, "partial": False, "estimated": False}
        charge = {**owner, "kind": 1, "key_id": 1, "model": "m"}
        connection.execute(
            sa.insert(accounts), {"id": 1, "name": "acme", "balance": 70, "created_at": 0}
        )
        connection.execute(
            sa.insert(api_keys),
            {"id": 1, "account_id": 1, "name": "ci", "digest": b"x", "created_at": 0},
        )
        connection.execute(sa.insert(ledger), {**owner, "kind": 0, **_entry(100, 0, 0, 0)})
        connection.execute(
            sa.insert(ledger),
            [
                {**charge, **_entry(-10, HOUR, 1, 2)},
                {**charge, **_entry(-15, 2 * HOUR - 1, 3, 4)},
                {**charge, **_entry(-5, 2 * HOUR, 5, 6)},
            ],
        )
    migrate(store)
    directory = Directory(store)
    assert list(differences(store)) == []
    used = directory.reports.usage("acme", since=0, interval=HOUR)
    assert [(one.start, one.requests, one.prompt_tokens, one.charged) for one in used] == [
        (HOUR, 2, 4, 25),
        (2 * HOUR, 1, 5, 5),
    ]
    # A day is the sum of its hours; ranges begin and end at full hours.
    (day,) = directory.reports.usage("acme", since=2 * HOUR - 1, until=2 * HOUR + 1)
    assert (day.start, day.requests, day.completion_tokens) == (0, 3, 12)
    assert directory.reports.usage("acme", since=HOUR, until=HOUR) == []
    store.close()


def test_migrating_again_changes_nothing(migrated: Store) -> None:
    def tables() -> list[str]:
        with migrated.engine.connect() as connection:
            return sorted(sa.inspect(connection).get_table_names())

    before = tables()
    migrate(migrated)
    assert tables() == before


def test_eight_processes_migrate_an_empty_database_at_once(database: str) -> None:
    with Crew(8) as crew:
        crew.each(migrate_once, database)
    store = Store(database)
    with store.engine.connect() as connection:
        versions = connection.execute(sa.text("SELECT version_num FROM alembic_version")).all()
    assert [row[0] for row in versions] == [HEAD]
    store.ping()
    store.close()


def test_a_newer_schema_is_refused(migrated: Store) -> None:
    with migrated.writer.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="9999"):
        migrate(migrated)


def test_a_schema_of_no_version_is_refused(migrated: Store) -> None:
    with migrated.writer.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(StoreError, match=r": its schema is of no version that is known$"):
        migrate(migrated)
    with migrated.writer.begin() as connection:
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('0001')"))
    with pytest.raises(StoreError, match=r": its schema is of several versions$"):
        migrate(migrated)


def test_head_is_the_last_file() -> None:
    files = (Path(migrations.__file__).parent / "versions").glob("*.py")
    assert max(path.name.partition("_")[0] for path in files) == HEAD

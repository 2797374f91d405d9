"""The changes of the store's schema over time: Alembic revisions, applied under a lock.

    versions/0001_…py -> versions/0002_…py -> …      HEAD is the last

The service migrates the schema to HEAD at start, and so does `python -m service migrate`. An empty
store gets the tables of HEAD directly; a test compares them with those of the revisions. Processes
that start together wait for each other: on SQLite for the writer's lock, on PostgreSQL for an
advisory lock. A schema that is newer than the code is rejected.
"""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from service.ledger import append_only
from service.ledger.schema import audit, metadata
from service.ledger.store import Store, StoreError

HEAD: Final = "0010"
"""The last revision. A test compares it with the files."""

LOCK: Final = 0x63686174
"""The number of the advisory lock on PostgreSQL: "chat"."""

_ALEMBIC: Final = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own table."""


def migrate(store: Store) -> None:
    """Migrate the schema to HEAD. If it is at HEAD, lock and write nothing.

    Raises:
        StoreError: The store is away, or its schema has a newer or an unknown version.
    """
    with store.reading() as connection:
        if _current(store, connection) == HEAD:
            return
    with store.writing() as connection:
        store.take_time(connection)
        if store.engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        current = _current(store, connection)
        if current == HEAD:
            return
        if current is None:
            _create(connection)
        elif current > HEAD:
            raise StoreError(
                f"{store.name}: its schema is {current}, newer than this version's {HEAD}"
            )
        else:
            _upgrade(store, connection)


def _create(connection: sa.Connection) -> None:
    """Create the tables of HEAD without importing Alembic."""
    metadata.create_all(connection)
    for statement in append_only.statements(audit.name, connection.dialect.name):
        connection.exec_driver_sql(statement)
    _ALEMBIC.create(connection)
    connection.execute(sa.insert(_ALEMBIC), {"version_num": HEAD})


def _current(store: Store, connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.select(_ALEMBIC.c.version_num)).scalars().all()
    if len(found) > 1:
        raise StoreError(f"{store.name}: its schema is of several versions")
    return found[0] if found else None


def _upgrade(store: Store, connection: sa.Connection, revision: str = HEAD) -> None:
    # Imported here, because a service with a current schema does not need it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise StoreError(f"{store.name}: its schema is of no version that is known") from error

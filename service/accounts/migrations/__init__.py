"""The store's schema over time: Alembic revisions, applied under a lock.

    versions/0001_…py ──► versions/0002_…py ──► …      HEAD is the last

They are applied when the service starts, or by `python -m service migrate`. Processes that start
together wait for each other: on SQLite for the writer's lock, on PostgreSQL for an advisory lock. A
schema that is newer than the code is refused.
"""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from service.accounts.store import Store, StoreError

HEAD: Final = "0001"
"""The last revision; a test compares it with the files."""

LOCK: Final = 0x63686174
"""The advisory lock on PostgreSQL: "chat"."""

_VERSION: Final = sa.table("alembic_version", sa.column("version_num", sa.Text))


def migrate(store: Store) -> None:
    """Bring the schema to HEAD; nothing happens where it is there.

    Raises:
        StoreError: the store is away, or its schema is of a newer version.
    """
    with store.writing() as connection:
        if store.engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        current = _current(connection)
        if current == HEAD:
            return
        if current is not None and current > HEAD:
            raise StoreError(
                f"{store.name}: its schema is {current}, newer than this version's {HEAD}"
            )
        _upgrade(connection)


def _current(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()


def _upgrade(connection: sa.Connection) -> None:
    # Imported where it is needed: a service whose schema is there starts without it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

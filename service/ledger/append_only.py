"""Triggers that reject changes to the rows of a table, also by other programs."""

from typing import Final

_SQLITE: Final = """\
CREATE TRIGGER {table}_{event}_rejected BEFORE {event} ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"""

_FUNCTION: Final = """\
CREATE FUNCTION {table}_change_rejected() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'rows of {table} are never changed'; END $$"""

_POSTGRESQL: Final = """\
CREATE TRIGGER {table}_{event}_rejected BEFORE {event} ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION {table}_change_rejected()"""


def statements(table: str, dialect: str) -> list[str]:
    """Return the statements that make a table append-only.

    Args:
        table: The name of the table.
        dialect: "sqlite" or "postgresql".
    """
    if dialect == "sqlite":
        return [_SQLITE.format(table=table, event=event) for event in ("UPDATE", "DELETE")]
    return [
        _FUNCTION.format(table=table),
        *(
            _POSTGRESQL.format(table=table, event=event)
            for event in ("UPDATE", "DELETE", "TRUNCATE")
        ),
    ]

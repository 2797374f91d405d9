"""A session on PostgreSQL: its settings, also behind a pooler.

    direct    the session is ours: its settings are set once, when it begins
    pooled    each transaction can run in another session: every transaction sets them for itself

A pooler such as PgBouncer gives a client a process id of its own invention, so a session is direct
if the server has the id that libpq knows. Behind a pooler, nothing may outlive a transaction: what
one client leaves in a session, another one finds. Statements are therefore not prepared, and every
setting is local. The settings are not sent with the start of the session, because PgBouncer refuses
those that it does not know.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import errors
from psycopg.pq.abc import PGconn

from service.ledger.pipeline import PreparedStatement, check, prepare
from service.ledger.postgres_statements import STATEMENTS

_POOLED: Final = "pooled"
_WAITING: Final = b"""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND wait_event = 'SyncRep'
AND state_change < clock_timestamp() - make_interval(secs => $1::float8)
"""
"""The number of COMMITs of this user that wait for a synchronous standby for some seconds."""

_log = logging.getLogger(__name__)


class SessionSettings:
    """Settings that each session of an engine has.

    Args:
        values: The settings. None of them contains a quote.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self.of_transaction: Final = PreparedStatement(
            name=b"settings", text=self._text(local=True).encode()
        )
        """Sets them for the current transaction."""

    def _text(self, *, local: bool) -> str:
        # A commit is flushed to disk, with any default of the database.
        flushes = (
            "CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
            " ELSE current_setting('synchronous_commit') END"
        )
        values = {"synchronous_commit": flushes} | {
            name: f"'{value}'" for name, value in self._values.items()
        }
        scope = str(local).lower()
        calls = (f"set_config('{name}', {value}, {scope})" for name, value in values.items())
        return f"SELECT {', '.join(calls)}"

    def listen(self, engine: sa.Engine, *, of_batches: bool, standby_within: float) -> None:
        """Give the settings to each session of an engine, and log the warnings of its server.

        Args:
            engine: The engine.
            of_batches: Whether its sessions are those of batches. If they are direct, they prepare
                the statements. No session begins while a COMMIT waits for a synchronous standby.
            standby_within: The maximum seconds of such a wait.
        """

        def begin_session(driver: psycopg.Connection[Any], record: Any) -> None:
            driver.add_notice_handler(_warned)
            is_direct = self._set(driver.pgconn)
            if of_batches:
                _check_standby(driver, standby_within)
            if is_direct:
                if of_batches:
                    prepare(driver.pgconn, STATEMENTS)
                return
            record.info[_POOLED] = True
            driver.prepare_threshold = None  # psycopg prepares nothing itself

        def begin_transaction(connection: sa.Connection) -> None:
            if is_pooled(connection.info):
                connection.exec_driver_sql(self.of_transaction.text.decode())

        sa.event.listen(engine, "connect", begin_session)
        sa.event.listen(engine, "begin", begin_transaction)

    def _set(self, connection: PGconn) -> bool:
        """Set them for the session, unless it is pooled, and return whether it is direct."""
        where = f" WHERE pg_backend_pid() = {connection.backend_pid}"
        return check(connection.exec_((self._text(local=False) + where).encode())).ntuples == 1


def is_pooled(info: Mapping[Any, Any]) -> bool:
    """Return whether a connection, from its `info`, can change its session between transactions."""
    return _POOLED in info


def _check_standby(driver: psycopg.Connection[Any], within: float) -> None:
    """Close a new session if a COMMIT waits for a synchronous standby.

    A COMMIT waits without a limit, also after its client has left, because to cancel it would be to
    commit without the standby. Each new session would leave another one that waits, until the
    server accepts no more.

    Raises:
        psycopg.OperationalError: A COMMIT waits.
    """
    found = check(driver.pgconn.exec_params(_WAITING, [str(within).encode()]))
    waiting = int(found.get_value(0, 0) or 0)
    if waiting:
        driver.close()
        raise psycopg.OperationalError(f"COMMIT waits for a synchronous standby ({waiting} times)")


def _warned(notice: errors.Diagnostic) -> None:
    """Log the server's warnings, for example about a COMMIT that did not wait for the standby.

    A command prints its log lines to standard error.
    """
    if notice.severity_nonlocalized == "WARNING":
        parts = (notice.message_primary, notice.message_detail)
        _log.warning("PostgreSQL warns: %s", ": ".join(part for part in parts if part))

"""PostgreSQL, and what speaks its protocol: one store for many replicas.

    1st round trip   BEGIN · lock the accounts, in the order of their ids · read the rest
    2nd round trip   INSERT and UPDATE … FROM json_to_recordset(rows) · COMMIT

The lock of an account covers its keys and its holds: nobody writes them without it, but for a key's
revocation, which is a column of its own. It leaves foreign keys alone (`FOR NO KEY UPDATE`). Two
batches never wait for each other in a circle, for all take their locks in the same order.

The database is asked for the time only after the locks, so that time never goes back from one batch
to the next. The statements are in `postgres_statements`.
"""

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import msgspec
import psycopg
import sqlalchemy as sa
from psycopg import errors
from psycopg.pq import ExecStatus

from service.ledger import usage
from service.ledger.pipeline import Pipeline, is_of_session, prepare
from service.ledger.postgres_statements import (
    ANY_HOLD,
    BEGIN,
    COMMIT,
    LOCK,
    NOW,
    READS,
    STATEMENTS,
    WRITES,
    Query,
    smallest,
)
from service.ledger.rows import Account, Changes, Hold, Key, Rows
from service.ledger.statements import (
    ConnectionLostError,
    Spare,
    Transaction,
    Values,
    Wanted,
)
from service.ledger.steps import Work, blocking

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class PostgreSQL:
    """A database on a server.

    Args:
        url: Its address. Unless it names other `target_session_attrs`, no session begins that
            cannot write.
        busy_timeout: Seconds that a transaction waits for a lock, and a new connection for its
            server; a statement has twice as long.
        idle_timeout: Seconds that a transaction waits for this process.
    """

    errors: Final = psycopg.Error
    faults: Final = (psycopg.IntegrityError, psycopg.DataError)
    """The errors that an operation causes, and not the state of the database."""

    def __init__(self, url: sa.URL, *, busy_timeout: float, idle_timeout: float) -> None:
        # What follows the question mark may hold a password, too.
        self.name = url.set(query={}).render_as_string(hide_password=True)
        url = url.set(drivername="postgresql+psycopg")
        if _ATTRIBUTES not in url.query:
            # What a standby answers is old, and would be for as long as the session lives.
            url = url.update_query_dict({_ATTRIBUTES: "read-write"})
        limits = {
            # Each statement sees what was committed before it, whatever the database's default is.
            "default_transaction_isolation": r"read\ committed",
            "lock_timeout": int(busy_timeout * 1000),
            "statement_timeout": int(2 * busy_timeout * 1000),
            "idle_in_transaction_session_timeout": int(idle_timeout * 1000),
        }
        self.engine = sa.create_engine(
            url,
            # A query must not fail for the connection that broke while it lay in the pool.
            pool_pre_ping=True,
            pool_size=4,
            max_overflow=4,
            pool_timeout=busy_timeout,
            connect_args=_arguments(busy_timeout, limits),
        )
        # A connection for the batches, which send their own BEGIN and COMMIT with the rest.
        self._batches = sa.create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            pool_timeout=busy_timeout,
            connect_args=_arguments(busy_timeout, {**limits, **_PLANS}),
        )
        self._spare = Spare(self._batches)
        self.engines = (self.engine, self._batches)
        for engine in self.engines:
            sa.event.listen(engine, "connect", _insist)
            sa.event.listen(engine, "connect", _pass_warnings_on)
        sa.event.listen(self._batches, "connect", _prepare)
        self._answer_within = 3 * busy_timeout

    def now(self, connection: sa.Connection) -> int:
        """Return the server's clock."""
        return int(connection.execute(sa.select(NOW)).scalar_one())

    def take_time(self, connection: sa.Connection) -> None:
        """Let the transaction run, and wait for locks, for as long as it takes."""
        for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(sa.select(sa.func.set_config(name, "0", True)))

    def transact(self, body: Callable[[Transaction], Work[_T]]) -> Work[_T]:
        """Do work in a transaction that writes."""
        connection = self._spare.take() or (yield from blocking(self._spare.connect))
        driver = cast("psycopg.Connection[Values]", connection.driver_connection)
        try:
            transaction = _Transaction(Pipeline(driver.pgconn, answer_within=self._answer_within))
            result = yield from body(transaction)
            yield from transaction.commit()
        except BaseException as error:
            lost = isinstance(error, psycopg.Error) and (driver.closed or is_of_session(error))
            # What ends in the middle leaves a transaction and answers behind. Both go with it.
            connection.invalidate()
            if lost:
                raise ConnectionLostError(str(error)) from error
            raise
        self._spare.keep(connection)
        return result

    def close(self) -> None:
        """Close all connections."""
        self._spare.close()
        for engine in self.engines:
            engine.dispose()

    def interrupt(self, driver: Any) -> None:
        """Make what a connection does fail; from any thread."""
        with (
            suppress(psycopg.Error, OSError),  # closed meanwhile
            socket.socket(fileno=os.dup(driver.fileno())) as connected,
        ):
            connected.shutdown(socket.SHUT_RDWR)

    def is_closed(self, driver: Any) -> bool:
        """Whether a connection is closed; from any thread."""
        return bool(driver.closed)


_ATTRIBUTES: Final = "target_session_attrs"

_PLANS: Final = {
    # What a batch needs is found by a key, row by row: never by a look at a whole table.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # There is one good plan for any batch, and making one takes longer than following it.
    "plan_cache_mode": "force_generic_plan",
    # Compiling one takes longer than any batch.
    "jit": "off",
}
"""How batches are planned. A plan is kept: one that was made while a table was empty must be good
when it is not."""


def _arguments(timeout: float, settings: Mapping[str, object]) -> dict[str, object]:
    return {
        "connect_timeout": int(timeout),
        "tcp_user_timeout": int(2 * timeout * 1000),
        # A server that is gone after it acknowledged a query: by default found out after two hours.
        "keepalives_idle": int(timeout),
        "keepalives_interval": int(timeout),
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }


def _insist(driver: psycopg.Connection[Values], _: object) -> None:
    """Have what is committed be on the disk, even where the database's default is otherwise."""
    result = driver.pgconn.exec_(
        b"SELECT set_config('synchronous_commit', 'on', false)"
        b" WHERE current_setting('synchronous_commit') = 'off'"
    )
    if result.status != ExecStatus.TUPLES_OK:
        raise errors.error_from_result(result)


def _pass_warnings_on(driver: psycopg.Connection[Values], _: object) -> None:
    """Log the server's warnings, such as that of a COMMIT that did not wait for the standby.

    A command has no other log than standard error.
    """
    driver.add_notice_handler(_warned)


def _warned(notice: errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        parts = (notice.message_primary, notice.message_detail)
        _log.warning("PostgreSQL warns: %s", ": ".join(part for part in parts if part))


def _prepare(driver: psycopg.Connection[Values], _: object) -> None:
    prepare(driver.pgconn, STATEMENTS)


class _Transaction:
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def read(self, wanted: Wanted) -> Work[tuple[Rows, int]]:
        rows = {"keys": wanted.keys, "holds": wanted.holds, "grants": wanted.grants}
        query = smallest(READS, rows)
        values = {"accounts": wanted.accounts, **rows}
        self._pipeline.send(BEGIN)
        self._pipeline.send(LOCK, _encode(wanted.accounts))
        # This one sees what was committed before the locks were there.
        self._send(query, values)
        _, locked, found = yield from self._pipeline.receive()
        *columns, now = (found.get_value(0, number) for number in range(len(query.kinds) + 1))
        text = dict(zip(query.kinds, columns, strict=True))
        read = Rows(
            accounts={
                account.id: account for account in _decode(_ACCOUNTS, locked.get_value(0, 0))
            },
            keys={key.id: key for key in _decode(_KEYS, text.get("keys"))},
            holds={hold.id: hold for hold in _decode(_HOLDS, text.get("holds"))},
            grants={
                (grant.account_id, grant.idempotency_id)
                for grant in _decode(_GRANTS, text.get("grants"))
            },
        )
        return read, int(now or 0)

    def any_hold(self, ids: Sequence[str]) -> Work[bool]:
        self._pipeline.send(ANY_HOLD, _encode(ids))
        (found,) = yield from self._pipeline.receive()
        return found.ntuples > 0

    def write(self, rows: Rows, changes: Changes) -> None:
        placed = set(changes.placed)
        values: dict[str, Sequence[object]] = {
            "accounts": [rows.accounts[id_] for id_ in changes.accounts],
            "keys": [rows.keys[id_] for id_ in changes.keys],
            "placed": [rows.holds[id_] for id_ in changes.placed],
            # The parts of the statement do not see each other's rows: a hold that was placed and
            # ended in one batch is inserted as it ended.
            "ended": [rows.holds[id_] for id_ in changes.ended if id_ not in placed],
            "entries": changes.entries,
            "totals": usage.totals(changes.entries),
        }
        if any(values.values()):
            self._send(smallest(WRITES, values), values)

    def _send(self, query: Query, values: Mapping[str, object]) -> None:
        texts = (_encode(values[name]) for name in query.parameters)
        self._pipeline.send(query.statement, *texts)

    def commit(self) -> Work[None]:
        self._pipeline.send(COMMIT)
        *_, committed = yield from self._pipeline.finish()
        if committed.command_status != b"COMMIT":
            raise psycopg.InternalError("the transaction was rolled back")


class _Grant(msgspec.Struct):
    account_id: int
    idempotency_id: str


_ACCOUNTS: Final = msgspec.json.Decoder(list[Account])
_KEYS: Final = msgspec.json.Decoder(list[Key])
_HOLDS: Final = msgspec.json.Decoder(list[Hold])
_GRANTS: Final = msgspec.json.Decoder(list[_Grant])
_encode: Final = msgspec.json.encode


def _decode(decoder: msgspec.json.Decoder[list[_T]], text: bytes | None) -> list[_T]:
    """Return the rows of a `json_agg`, which is NULL where there are none."""
    return [] if text is None else decoder.decode(text)

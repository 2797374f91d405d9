"""PostgreSQL and databases with its protocol: one store for many replicas.

A batch takes two round trips of one `Pipeline`, with the statements of `postgres_statements`:

    this process                                        the server
    BEGIN                                               READ COMMITTED
    LOCK   accounts 3, 7                                locks them in the order of their ids
    READ   keys, holds, grants              -- 1st ->   reads rows committed before the locks
                                            <-          JSON of the rows, and the time
    decide
    WRITE  JSON of the changed rows                     UPDATE, INSERT … FROM json_to_recordset
    COMMIT                                  -- 2nd ->   flushes the commit to disk
                                            <-          COMMIT

Every COMMIT is flushed. A service outlives a crash of the server: if its holds were undone, other
calls could spend the credit of those that still run.

The lock of an account covers its keys and holds: nothing writes them without it, except the
revocation of a key, which has a column of its own. The lock does not block foreign keys (`FOR NO
KEY UPDATE`). All batches take their locks in the same order, so that they cannot deadlock. READ

reads the time after the locks, so that time never goes back from one batch to the next. After any
error, the connection is closed, with its transaction and unread results.
"""

import os
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final, TypeVar, cast

import msgspec
import psycopg
import sqlalchemy as sa
from msgspec import structs

from service.ledger import usage
from service.ledger.database import ConnectionLostError, InThread, Spare, Transaction, blocking
from service.ledger.pipeline import Pipeline, PreparedStatement
from service.ledger.postgres_address import parse
from service.ledger.postgres_session import SessionSettings, is_pooled
from service.ledger.postgres_statements import (
    ANY_HOLD,
    BEGIN,
    COMMIT,
    LOCK,
    NOW,
    READS,
    WRITES,
    Query,
    smallest,
)
from service.ledger.rows import Account, AnswerRow, Changes, Hold, Key, Rows
from service.ledger.statements import Values, Wanted, put_and_deleted

_T = TypeVar("_T")


class PostgreSQL:
    """A database on a server.

    Args:
        address: The address. Unless it sets `target_session_attrs`, only sessions that can write
            are used.
        busy_timeout: The maximum seconds that a transaction waits for a lock, and a new connection
            for its server. A statement can take twice as long.
        idle_timeout: The maximum seconds that a transaction waits for this process.
    """

    errors: Final = psycopg.Error
    faults: Final = (psycopg.IntegrityError, psycopg.DataError)
    """The exceptions that an operation causes, not the state of the database."""

    def __init__(self, address: str, *, busy_timeout: float, idle_timeout: float) -> None:
        url, self.name = parse(address)
        url = url.set(drivername="postgresql+psycopg")
        if _ATTRIBUTES not in url.query:
            # A standby returns old rows, for as long as its session lives.
            url = url.update_query_dict({_ATTRIBUTES: "read-write"})
        limits = {
            "lock_timeout": int(busy_timeout * 1000),
            "statement_timeout": int(2 * busy_timeout * 1000),
            "idle_in_transaction_session_timeout": int(idle_timeout * 1000),
        }
        self.engine = sa.create_engine(
            url,
            # With any default of the database.
            isolation_level="READ COMMITTED",
            # A query must not fail because a pooled connection broke.
            pool_pre_ping=True,
            pool_size=4,
            max_overflow=4,
            pool_timeout=busy_timeout,
            connect_args=_arguments(busy_timeout),
        )
        # The connections of batches, which send their own BEGIN and COMMIT.
        self._batches = sa.create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            pool_timeout=busy_timeout,
            connect_args=_arguments(busy_timeout),
        )
        self._spare = Spare(self._batches)
        self.engines = (self.engine, self._batches)
        self._settings = SessionSettings({**limits, **_PLANS})
        for settings, engine in (
            (SessionSettings(limits), self.engine),
            (self._settings, self._batches),
        ):
            settings.listen(engine, of_batches=engine is self._batches, standby_within=busy_timeout)
        self._answer_within = 3 * busy_timeout

    def now(self, connection: sa.Connection) -> int:
        """Return the server's clock."""
        return int(connection.execute(sa.select(NOW)).scalar_one())

    def take_time(self, connection: sa.Connection) -> None:
        """Remove the time limits of the transaction, including those for locks."""
        for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(sa.select(sa.func.set_config(name, "0", True)))

    async def transact(
        self,
        body: Callable[[Transaction], Coroutine[Any, Any, _T]],
        in_thread: InThread | None,
        *,
        durable: bool,
    ) -> _T:
        """Run a body in a transaction that writes, and commit it."""
        del durable  # every commit is
        connection = self._spare.take()
        if connection is None:
            connection = await blocking(self._spare.connect, in_thread)
        driver = cast("psycopg.Connection[Values]", connection.driver_connection)
        try:
            pooled = is_pooled(connection.info)
            pipeline = Pipeline(
                driver.pgconn,
                answer_within=self._answer_within,
                blocks=in_thread is None,
                prepared=not pooled,
            )
            transaction = _Transaction(pipeline, self._settings.of_transaction if pooled else None)
            result = await body(transaction)
            await transaction.commit()
        except BaseException as error:
            lost = isinstance(error, psycopg.Error) and (driver.closed or is_of_session(error))
            # An open transaction and unread results go with the connection.
            connection.invalidate()
            if lost:
                raise ConnectionLostError(str(error)) from error
            raise
        self._spare.keep(connection)
        return result

    def turn(self) -> AbstractContextManager[None]:
        """Do nothing: the server queues those who wait for a lock."""
        return nullcontext()

    def close(self) -> None:
        """Close all connections."""
        self._spare.close()
        for engine in self.engines:
            engine.dispose()

    def interrupt(self, driver: Any) -> None:
        """Make the current work of a connection fail. Call it from any thread."""
        with (
            suppress(psycopg.Error, OSError),  # closed in the meantime
            socket.socket(fileno=os.dup(driver.fileno())) as connected,
        ):
            connected.shutdown(socket.SHUT_RDWR)

    def is_closed(self, driver: Any) -> bool:
        """Whether a connection is closed. Call it from any thread."""
        return bool(driver.closed)


_ATTRIBUTES: Final = "target_session_attrs"

_PLANS: Final = {
    # A batch finds each row by a key, and never scans a table.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # One plan suits every batch, and planning takes longer than execution.
    "plan_cache_mode": "force_generic_plan",
    # Compiling a plan takes longer than any batch.
    "jit": "off",
}
"""The server's planner settings for batches. The server keeps a plan that it made for an empty
table, so the plan must also suit a full one."""


def _arguments(timeout: float) -> dict[str, object]:
    return {
        "connect_timeout": int(timeout),
        "tcp_user_timeout": int(2 * timeout * 1000),
        # By default, a server that fails after acknowledging a query is detected in two hours.
        "keepalives_idle": int(timeout),
        "keepalives_interval": int(timeout),
    }


_ENDED: Final = ("FATAL", "PANIC")
_OF_THE_SESSION: Final = (
    "08",  # connection exceptions, also of a proxy that lost its server
    "25006",  # a read-only transaction: a standby, or default_transaction_read_only
    "26000",  # a prepared statement is gone: DISCARD ALL, or another server behind a proxy
    "57P",  # the server stops, crashed or starts; the session was idle for too long
)
"""The prefixes of SQLSTATEs that the statement did not cause."""


def is_of_session(error: psycopg.Error) -> bool:
    """Return whether a statement failed because of its session, so that a new one can run it.

    The server closes the connection with some of these errors. With the others, the session would
    always fail, even if the address now leads to another server.
    """
    state = error.sqlstate or ""
    return error.diag.severity_nonlocalized in _ENDED or state.startswith(_OF_THE_SESSION)


class _Transaction:
    def __init__(self, pipeline: Pipeline, settings: PreparedStatement | None) -> None:
        self._pipeline = pipeline
        self._settings = settings
        """Statement that sets the settings of the transaction; None if the session has them."""

    async def read(self, wanted: Wanted) -> tuple[Rows, int]:
        ids = {
            "keys": wanted.keys,
            "holds": wanted.holds,
            "grants": wanted.grants,
            "answers": wanted.answers,
        }
        query = smallest(READS, ids)
        self._pipeline.send(BEGIN)
        if self._settings is not None:
            self._pipeline.send(self._settings)
        self._pipeline.send(LOCK, _encode(wanted.accounts))
        self._send(query, {"accounts": wanted.accounts, **ids})
        *_, locked, found = await self._pipeline.receive()
        texts = {kind: found.get_value(0, column) for column, kind in enumerate(query.kinds)}
        now = found.get_value(0, len(query.kinds))
        rows = Rows(
            accounts={row.id: row for row in _decode(_ACCOUNTS, locked.get_value(0, 0))},
            keys={row.id: row for row in _decode(_KEYS, texts.get("keys"))},
            holds={row.id: row for row in _decode(_HOLDS, texts.get("holds"))},
            grants={
                (row.account_id, row.idempotency_id)
                for row in _decode(_GRANTS, texts.get("grants"))
            },
            answers={row.id: row for row in _decode(_ANSWERS, texts.get("answers"))},
        )
        return rows, int(now or 0)

    async def any_hold(self, ids: Sequence[str]) -> bool:
        self._pipeline.send(ANY_HOLD, _encode(ids))
        (found,) = await self._pipeline.receive()
        return found.ntuples > 0

    def write(self, rows: Rows, changes: Changes) -> None:
        placed = set(changes.placed)
        values: dict[str, Sequence[object]] = {
            "accounts": [rows.accounts[id_] for id_ in changes.accounts],
            "keys": [rows.keys[id_] for id_ in changes.keys],
            "placed": [rows.holds[id_] for id_ in changes.placed],
            # The parts of WRITE do not see each other's rows, so a hold that was placed and ended
            # in one batch is inserted in its final state.
            "ended": [rows.holds[id_] for id_ in changes.ended if id_ not in placed],
            "entries": changes.entries,
            "totals": usage.totals(changes.entries, rows.keys),
            "events": changes.events,
        }
        if changes.answers:
            put, deleted = put_and_deleted(rows, changes)
            values["answers"] = [_with_hex(answer) for answer in put]
            values["deleted"] = [answer.id for answer in deleted]
        if any(values.values()):
            self._send(smallest(WRITES, values), values)

    def _send(self, query: Query, values: Mapping[str, object]) -> None:
        texts = (_encode(values.get(name, ())) for name in query.parameters)
        self._pipeline.send(query.statement, *texts)

    async def commit(self) -> None:
        self._pipeline.send(COMMIT)
        *_, committed = await self._pipeline.finish()
        if committed.command_status != b"COMMIT":
            raise psycopg.InternalError("the transaction was rolled back")


class _Grant(msgspec.Struct):
    account_id: int
    idempotency_id: str


_ACCOUNTS: Final = msgspec.json.Decoder(list[Account])
_KEYS: Final = msgspec.json.Decoder(list[Key])
_HOLDS: Final = msgspec.json.Decoder(list[Hold])
_GRANTS: Final = msgspec.json.Decoder(list[_Grant])
_ANSWERS: Final = msgspec.json.Decoder(list[AnswerRow])
_encode: Final = msgspec.json.encode


def _with_hex(answer: AnswerRow) -> dict[str, object]:
    """Return an answer with its content as PostgreSQL reads bytes in JSON."""
    content = answer.content
    return {
        **structs.asdict(answer),
        "content": None if content is None else f"\\x{content.hex()}",
    }


def _decode(decoder: msgspec.json.Decoder[list[_T]], text: bytes | None) -> list[_T]:
    """Return the rows of a `json_agg`, which is NULL if there are none."""
    return [] if text is None else decoder.decode(text)

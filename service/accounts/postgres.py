"""PostgreSQL, and what speaks its protocol: one store for many replicas.

    1st round trip   BEGIN · lock the accounts, in the order of their ids · keys · holds · clock
    2nd round trip   INSERT and UPDATE … FROM json_to_recordset(rows) · COMMIT

The lock of an account covers its keys and its holds: nobody writes them without it, but for a key's
revocation, which is a column of its own. It leaves foreign keys alone (`FOR NO KEY UPDATE`). Two
batches never wait for each other in a circle, for all take their locks in the same order.

The statements of a round trip are sent together (libpq's pipeline mode). The database is asked for
the time only after the locks, so that time never goes back from one batch to the next.
"""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import msgspec
import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

from service.accounts import statements
from service.accounts.rows import Changes, Rows
from service.accounts.schema import accounts, api_keys, holds, ledger
from service.accounts.statements import ConnectionLostError, Values, Wanted

_DIALECT: Final = psycopg_dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's


class PostgreSQL:
    """A database on a server.

    Args:
        url: Its address.
        busy_timeout: Seconds that a transaction waits for a lock, and a new connection for its
            server; a statement has twice as long.
    """

    errors: Final = psycopg.Error
    faults: Final = (psycopg.IntegrityError, psycopg.DataError)
    """The errors that an operation causes, and not the state of the database."""

    def __init__(self, url: sa.URL, *, busy_timeout: float) -> None:
        self.name = url.render_as_string(hide_password=True)
        url = url.set(drivername="postgresql+psycopg")
        limits = {
            "lock_timeout": int(busy_timeout * 1000),
            "statement_timeout": int(2 * busy_timeout * 1000),
            "idle_in_transaction_session_timeout": int(4 * busy_timeout * 1000),
        }
        self.engine = sa.create_engine(
            url,
            pool_size=4,
            max_overflow=4,
            pool_timeout=busy_timeout,
            connect_args=_arguments(busy_timeout, limits),
        )
        # A connection for the batches, which send their own BEGIN and COMMIT with the rest. The
        # plans of its statements are kept: one that was made while a table was small must not read
        # all of it when it is large. What a batch needs is always found by a key.
        self._batches = sa.create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            pool_timeout=busy_timeout,
            connect_args=_arguments(busy_timeout, {**limits, "enable_seqscan": "off"}),
        )
        self.engines = (self.engine, self._batches)

    def now(self, connection: sa.Connection) -> int:
        """Return the server's clock."""
        return int(connection.execute(_CLOCK).scalar_one())

    @contextmanager
    def transaction(self) -> Iterator["_Transaction"]:
        """Begin a transaction that writes; the end of the block commits it."""
        connection = self._batches.raw_connection()
        driver = cast("psycopg.Connection[Values]", connection.driver_connection)
        try:
            with driver.pipeline():
                driver.execute("BEGIN", prepare=False)
                yield _Transaction(driver)
                driver.execute("COMMIT", prepare=False)
        except psycopg.Error as error:
            if not driver.closed:
                raise
            connection.invalidate()
            raise ConnectionLostError(str(error)) from error
        finally:
            connection.close()  # the pool rolls back what was not committed

    def interrupt(self, driver: Any) -> None:
        """Make what a connection does fail; from any thread."""
        with (
            suppress(psycopg.Error, OSError),  # closed meanwhile
            socket.socket(fileno=os.dup(driver.fileno())) as connected,
        ):
            connected.shutdown(socket.SHUT_RDWR)


def _arguments(timeout: float, settings: Mapping[str, object]) -> dict[str, object]:
    return {
        "connect_timeout": int(timeout),
        "tcp_user_timeout": int(2 * timeout * 1000),
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }


class _Transaction:
    def __init__(self, driver: psycopg.Connection[Values]) -> None:
        self._driver = driver

    def read(self, wanted: Wanted) -> tuple[Rows, int]:
        run = self._driver.execute
        # All are sent before the first answer is read.
        locked = run(_ACCOUNTS, {"ids": wanted.accounts})
        keys = run(_KEYS, {"ids": wanted.keys}) if wanted.keys else ()
        held = run(_HOLDS, {"ids": wanted.holds}) if wanted.holds else ()
        grants = (
            run(_GRANTS, {"accounts": wanted.accounts, "ids": wanted.grants})
            if wanted.grants
            else ()
        )
        clock = run(_NOW)
        rows = statements.rows_of(locked, keys, held, grants)
        ((now,),) = clock
        return rows, now

    def any_hold(self, ids: Sequence[str]) -> bool:
        return self._driver.execute(_HOLDS, {"ids": ids}).fetchone() is not None

    def write(self, rows: Rows, changes: Changes) -> None:
        if changes.accounts:
            self._run(_UPDATE_ACCOUNT, [rows.accounts[id_] for id_ in changes.accounts])
        if changes.keys:
            self._run(_UPDATE_KEY, [rows.keys[id_] for id_ in changes.keys])
        if changes.placed:
            self._run(_INSERT_HOLD, [rows.holds[id_] for id_ in changes.placed])
        if changes.ended:
            self._run(_UPDATE_HOLD, [rows.holds[id_] for id_ in changes.ended])
        if changes.entries:
            self._run(_INSERT_ENTRY, changes.entries)

    def _run(self, statement: bytes, values: Sequence[Any]) -> None:
        rows = msgspec.json.encode(values).decode()
        self._driver.execute(statement, {"rows": rows})


# ----------------------------------------------------------------------------------- statements

_CLOCK: Final = sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000000 AS bigint)")


def _text(statement: sa.ClauseElement) -> bytes:
    return str(statement.compile(dialect=_DIALECT)).encode()


def _any(name: str, type_: type[sa.types.TypeEngine[Any]]) -> sa.CollectionAggregate[Any]:
    return sa.any_(sa.bindparam(name, type_=ARRAY(type_)))


def _given(table: sa.Table, names: Sequence[str]) -> Any:
    """Return rows that are given as one array of JSON objects: values, as they are."""
    columns = [sa.column(name, table.c[name].type) for name in names]
    given = sa.func.json_to_recordset(sa.bindparam("rows", type_=sa.Text).cast(JSON))
    return given.table_valued(*columns).render_derived(name="given", with_types=True)


def _update(table: sa.Table, names: Sequence[str]) -> bytes:
    given = _given(table, ("id", *names))
    return _text(
        sa.update(table)
        .where(table.c.id == given.c.id)
        .values({name: given.c[name] for name in names})
    )


def _insert(table: sa.Table, names: Sequence[str]) -> bytes:
    given = _given(table, names)
    return _text(
        sa.insert(table).from_select(
            list(names), sa.select(*(given.c[name] for name in names)), include_defaults=False
        )
    )


_NOW: Final = _text(_CLOCK)
_ACCOUNTS: Final = _text(
    sa.select(*statements.columns(accounts, statements.ACCOUNT))
    .where(accounts.c.id == _any("ids", sa.BigInteger))
    .order_by(accounts.c.id)
    .with_for_update(key_share=True)
)
_KEYS: Final = _text(
    sa.select(*statements.columns(api_keys, statements.KEY)).where(
        api_keys.c.id == _any("ids", sa.BigInteger)
    )
)
_HOLDS: Final = _text(
    sa.select(*statements.columns(holds, statements.HOLD)).where(holds.c.id == _any("ids", sa.Text))
)
_GRANTS: Final = _text(
    sa.select(ledger.c.account_id, ledger.c.idempotency_id).where(
        ledger.c.account_id == _any("accounts", sa.BigInteger),
        ledger.c.idempotency_id == _any("ids", sa.Text),
    )
)
_UPDATE_ACCOUNT: Final = _update(accounts, statements.ACCOUNT_CHANGES)
_UPDATE_KEY: Final = _update(api_keys, statements.KEY_CHANGES)
_UPDATE_HOLD: Final = _update(holds, statements.HOLD_CHANGES)
_INSERT_HOLD: Final = _insert(holds, statements.HOLD)
_INSERT_ENTRY: Final = _insert(ledger, statements.ENTRY)

"""The store: one interface to a SQL database, on SQLite or PostgreSQL.

One batch, from operations to outcomes:

    Batches.submit(operation), …
       up to 256 that arrived together
    Store.applying(operations) -> outcomes
       Database.transact                 sqlite, postgres: a transaction on a connection
         read: BEGIN, lock the accounts, read keys, holds, grants, time    -> Rows, now
         decide(Rows, operations, now)   decisions, a pure function        -> outcomes, Changes
         write: INSERT and UPDATE, in bulk
         COMMIT                          the outcomes are valid from now on

SQLite does all of it in the thread of `Batches`. PostgreSQL needs two round trips, one up to `read`
and one from `write` on, and `Batches` waits for them on its event loop.

The store assumes that the hold of a `Place` is new and does not look for it. If the `Place` was
sent before, the insertion conflicts, or the `Place` is refused while its hold stands. The store
then decides the batch again with all holds read.

If a connection breaks, or its session cannot write, the store tries the batch once more on a new
connection. The response to a COMMIT can be lost, but no operation has its effect twice. The store
does not reuse a session that failed for any reason other than its operations.

Every method except `applying` with `in_thread` blocks, and must run in a thread of `Batches`.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry

from service.ledger.database import (
    ConnectionLostError,
    Database,
    InThread,
    Transaction,
    blocking,
    run,
)
from service.ledger.decisions import KEPT, decide
from service.ledger.ids import first_at, hold_id
from service.ledger.rows import Claimed, Expire, HoldState, Operation, Outcome, Place, Refused
from service.ledger.schema import accounts, api_keys, holds
from service.ledger.sqlite import SQLite
from service.ledger.statements import Wanted

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """The timeouts of a store, in seconds."""

    busy: float = 4.0
    """Maximum wait for the locks of other transactions, before the store counts as away."""
    idle: float = 16.0
    """Maximum wait for this process within a transaction, before PostgreSQL ends the session."""


TIMEOUTS: Final = Timeouts()
"""The default timeouts."""

_UNPOOLABLE: Final = "statement pooling mode"
"""Part of PgBouncer's refusal of a transaction, because it could run in several sessions."""

_LEVELS: Final = tuple(accounts.alias(f"level_{number}") for number in range(3))
"""The account of a key and those above it, except the topmost of four, which is a parent only."""
_PARENTS: Final = tuple(
    level.c.parent_id.label(f"parent_{number}") for number, level in enumerate(_LEVELS)
)

_EXPIRED_AT_ONCE: Final = 256
_PRUNED_AT_ONCE: Final = 1000


class StoreError(Exception):
    """The store cannot be reached, is too busy or is full. The text is for operators."""


class _SentAgainError(Exception):
    """A refused Place has a hold: it was placed before."""


class Store:
    """The accounts of one database.

    Args:
        url: The URL in SQLAlchemy's form: `sqlite:///file` or `postgresql://…`.
        clock: Returns nanoseconds since the Unix epoch, for databases without a clock.
        timeouts: The timeouts.
        thresholds: The percentages of credit that are reported as events; None for no events.

    Raises:
        ValueError: The URL has another form.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], int] = time.time_ns,
        timeouts: Timeouts = TIMEOUTS,
        thresholds: tuple[int, ...] | None = None,
    ) -> None:
        self._database = _database(url, clock, timeouts)
        self.name = self._database.name
        """The file or the address, for operators."""
        self.engine = self._database.engine
        self.writer = self.engine.execution_options(writes=True)
        """The same engine. On SQLite, its transactions take the writer's lock when they begin."""
        self.thresholds = thresholds
        """The percentages of credit that are reported as events; None for no events."""
        self._open: set[Any] = set()
        self._undecided: tuple[type[Exception], ...] = (_SentAgainError, *self._database.faults)
        self._interruptions = 0
        self._closings = 0
        for engine in self._database.engines:
            sa.event.listen(engine, "do_connect", self._opens)
            # Before its first query, so that `interrupt` works if that query finds a frozen server.
            sa.event.listen(engine, "connect", self._opened, insert=True)
            sa.event.listen(engine, "close", self._closed)
            sa.event.listen(engine, "checkin", self._returned)
            sa.event.listen(engine, "handle_error", self._failed)

    def close(self) -> None:
        """Close all connections; those in use, when they are returned. Later uses open new ones."""
        self._closings += 1
        self._database.close()

    def interrupt(self) -> None:
        """Make the current work of the store fail with `StoreError`. Call it from any thread.

        Use it for a server that neither responds nor closes its connections. Idle connections fail
        at their next use and are replaced.
        """
        self._interruptions += 1
        for driver in list(self._open):
            self._database.interrupt(driver)

    def _opens(self, _: object, record: ConnectionPoolEntry, *__: object) -> None:
        # Before connecting, because `close` can be called in the meantime.
        record.info["closings"] = self._closings

    def _opened(self, driver: Any, _: object) -> None:
        # No event reports connections that failed while they were prepared.
        for known in list(self._open):
            if self._database.is_closed(known):
                self._open.discard(known)
        self._open.add(driver)

    def _returned(self, driver: Any, record: ConnectionPoolEntry) -> None:
        if driver is not None and record.info["closings"] != self._closings:
            record.invalidate()  # its pool is gone, and would keep it forever

    def _closed(self, driver: Any, _: object) -> None:
        self._open.discard(driver)

    def _failed(self, context: sa.ExceptionContext) -> None:
        error = context.original_exception
        if isinstance(error, self._database.errors) and not isinstance(
            error, self._database.faults
        ):
            # The fault can be that of the session, for as long as it lives: a session that began
            # while the database was read-only stays read-only. Pooled sessions are closed too.
            context.is_disconnect = True
            # The error keeps the cursor alive, which would keep the connection half open.
            cursor = getattr(context.execution_context, "cursor", None)
            if cursor is not None:
                cursor.close()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection for queries.

        Raises:
            StoreError: The store is away.
        """
        with self._foreign_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def reading_at_once(self) -> Iterator[sa.Connection]:
        """Yield a connection for several queries on one snapshot.

        Raises:
            StoreError: The store is away.
        """
        with self.reading() as connection:
            if connection.dialect.name == "postgresql":
                # On SQLite, every transaction has one snapshot.
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Begin a transaction that writes. The end of the block commits it.

        Raises:
            StoreError: The store is away.
        """
        with self._foreign_errors(), self._database.turn(), self.writer.begin() as connection:
            yield connection

    def ping(self) -> None:
        """Check that the store responds.

        Raises:
            StoreError: It does not.
        """
        with self.reading() as connection:
            connection.execute(sa.select(accounts.c.id).limit(1))

    def try_writing(self) -> None:
        """Write the rows of a call and remove them in the same transaction.

        A store can respond and take locks although its disk is full.

        Raises:
            StoreError: The store rejects writes.
        """
        with self.writing() as connection:
            now = self.now(connection)
            name = hold_id(now)
            inserted = sa.insert(accounts).returning(accounts.c.id)
            account = connection.execute(inserted, {"name": name, "created_at": now}).scalar_one()
            inserted = sa.insert(api_keys).returning(api_keys.c.id)
            values = {
                "account_id": account,
                "name": name,
                "digest": name.encode(),
                "created_at": now,
            }
            key = connection.execute(inserted, values).scalar_one()
            hold = {
                "id": name,
                "account_id": account,
                "key_id": key,
                "amount": 0,
                "tokens": 0,
                "model": name,
                "owner": name,
                "created_at": now,
                "lease_until": now,
                "state": HoldState.OPEN,
            }
            connection.execute(sa.insert(holds), hold)
            connection.execute(sa.delete(holds).where(holds.c.id == name))
            connection.execute(sa.delete(api_keys).where(api_keys.c.id == key))
            connection.execute(sa.delete(accounts).where(accounts.c.id == account))

    def now(self, connection: sa.Connection) -> int:
        """Return the store's clock, in nanoseconds since the Unix epoch."""
        return self._database.now(connection)

    def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Apply operations in one transaction. Blocks.

        Raises:
            StoreError: The store is away. Operations that were applied nevertheless return the same
                outcome when they are sent again.
        """
        return run(self.applying(operations))

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        """Apply operations in one transaction, in a thread or on an event loop.

        Args:
            operations: The operations.
            in_thread: Runs blocking functions in a thread; None blocks the caller.

        Raises:
            StoreError: As `apply`.
        """
        interruptions = self._interruptions
        with self._foreign_errors():
            try:
                return await self._apply(operations, in_thread, sent_again=False)
            except self._undecided:
                return await self._apply(operations, in_thread, sent_again=True)
            except ConnectionLostError:
                # The pooled connections are as old as the broken one.
                await blocking(self.close, in_thread)
                if self._interruptions != interruptions:
                    raise
                return await self._apply(operations, in_thread, sent_again=True)

    async def _apply(
        self, operations: Sequence[Operation], in_thread: InThread | None, *, sent_again: bool
    ) -> list[Outcome]:
        wanted = Wanted.of(operations, sent_again=sent_again)

        async def decided(transaction: Transaction) -> list[Outcome]:
            rows, now = await transaction.read(wanted)
            outcomes, changes = decide(rows, operations, now, self.thresholds)
            if not sent_again:
                refused = [
                    operation.hold_id
                    for operation, outcome in zip(operations, outcomes, strict=True)
                    if isinstance(outcome, (Refused, Claimed)) and isinstance(operation, Place)
                ]
                if refused and await transaction.any_hold(refused):
                    raise _SentAgainError
            transaction.write(rows, changes)
            return outcomes

        # A crash that undoes a hold ends its call too. The next durable transaction flushes it.
        durable = not all(isinstance(operation, Place) for operation in operations)
        return await self._database.transact(decided, in_thread, durable=durable)

    def expired(self) -> list[Expire]:
        """Return operations that end holds whose lease has expired, up to some hundred.

        Raises:
            StoreError: The store is away.
        """
        with self.reading() as connection:
            found = connection.execute(
                sa.select(holds.c.id, holds.c.key_id, api_keys.c.account_id, *_PARENTS)
                .join(api_keys, api_keys.c.id == holds.c.key_id)
                .join(_LEVELS[0], _LEVELS[0].c.id == api_keys.c.account_id)
                .outerjoin(_LEVELS[1], _LEVELS[1].c.id == _LEVELS[0].c.parent_id)
                .outerjoin(_LEVELS[2], _LEVELS[2].c.id == _LEVELS[1].c.parent_id)
                .where(holds.c.state == HoldState.OPEN, holds.c.lease_until <= self.now(connection))
                .order_by(holds.c.lease_until)
                .limit(_EXPIRED_AT_ONCE)
            )
            return [
                Expire(
                    hold_id=row.id,
                    account_id=row.account_id,
                    key_id=row.key_id,
                    parents=tuple(id_ for id_ in row[-len(_PARENTS) :] if id_ is not None),
                )
                for row in found
            ]

    def prune(self) -> int:
        """Delete some of the holds that ended long ago, and return their number.

        A later settlement of such a hold is rejected.

        Raises:
            StoreError: The store is away.
        """
        with self.reading() as connection:
            before = self.now(connection) - KEPT
            # Ids are in the order of creation, so the oldest holds come first.
            found = connection.execute(
                sa.select(holds.c.id)
                .where(
                    holds.c.id < first_at(max(before, 0)),
                    holds.c.ended_at < before,
                    holds.c.state != HoldState.OPEN,
                )
                .order_by(holds.c.id)
                .limit(_PRUNED_AT_ONCE)
            )
            ids = [row.id for row in found]
        if ids:
            with self.writing() as connection:
                connection.execute(sa.delete(holds).where(holds.c.id.in_(ids)))
        return len(ids)

    def take_time(self, connection: sa.Connection) -> None:
        """Remove the time limits of a transaction, including those for locks. For operators."""
        self._database.take_time(connection)

    def _foreign_errors(self) -> AbstractContextManager[None]:
        return foreign_errors(self.name, self._database.errors, self._database.faults)


@contextmanager
def foreign_errors(
    name: str = "the store",
    errors: type[Exception] = sqlite3.Error,
    faults: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn exceptions of a database that is away, locked, full or broken into `StoreError`.

    Args:
        name: The beginning of the text.
        errors: The exceptions of the driver, if SQLAlchemy does not wrap them.
        faults: Those exceptions that are not converted.
    """
    try:
        yield
    except (exc.IntegrityError, exc.DataError):
        raise
    except faults:
        raise
    except exc.DBAPIError as error:
        raise StoreError(_text(name, error.orig)) from error
    except exc.TimeoutError as error:
        raise StoreError(f"{name}: no connection became free") from error
    except (errors, ConnectionLostError) as error:
        raise StoreError(_text(name, error)) from error
    except UnicodeError as error:  # the name of a host is too long to be looked up
        raise StoreError(f"{name}: the name of the host cannot be looked up") from error


def _text(name: str, error: BaseException | None) -> str:
    """Return the first line of an error, without the database's hints and the statement."""
    text = str(error).strip().partition("\n")[0]
    if _UNPOOLABLE in text:
        text += "; set pool_mode of PgBouncer to session or transaction"
    return f"{name}: {text}"


def _database(url: str, clock: Callable[[], int], timeouts: Timeouts) -> Database:
    scheme = url.partition("://")[0]
    if scheme in {"postgres", "postgresql", "postgresql+psycopg"}:
        return _postgres(url, timeouts)
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise ValueError("not a database address") from error
    if parsed.drivername == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        if parsed.query:
            raise ValueError("a SQLite file takes no options")
        return SQLite(parsed, clock=clock, busy_timeout=timeouts.busy)
    raise ValueError("neither sqlite:///file nor postgresql://…")


def _postgres(address: str, timeouts: Timeouts) -> Database:
    # The text after an @ in a password would be read as the host, and printed.
    path = address.partition("://")[2].partition("?")[0]
    if (path.rpartition("/")[0] or path).count("@") > 1:
        raise ValueError("an @ of the password has to be written as %40")
    # The driver is an extra, which the SQLite default does not need.
    try:
        from service.ledger.postgres import PostgreSQL  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("PostgreSQL needs the extra `postgres`") from error
    try:
        return PostgreSQL(address, busy_timeout=timeouts.busy, idle_timeout=timeouts.idle)
    except (exc.ArgumentError, ValueError) as error:
        raise ValueError("not a database address") from error

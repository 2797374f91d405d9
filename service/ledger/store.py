"""The store: one SQL database behind one interface, on two engines.

One batch, from operations to outcomes:

    Batches.submit(operation), …
       │ up to 256 that arrived together
    Store.applying(operations) ─► outcomes
       │ Database.transact                 sqlite · postgres: a connection, and a transaction of it
       ├─ read: BEGIN, lock the accounts, read keys, holds, grants, time      ─► Rows, now
       ├─ decide(Rows, operations, now)    decisions, a pure function         ─► outcomes, Changes
       ├─ write: INSERT and UPDATE, in bulk
       └─ COMMIT                           only now are the outcomes true

SQLite does all of it in the thread of `Batches`. PostgreSQL needs two round trips, one up to `read`
and one from `write` on, and `Batches` waits for them on its event loop.

The store assumes that the hold of a `Place` is new and does not look for it. If the `Place` was
sent before, the insertion conflicts, or the `Place` is refused while its hold stands. The store
then decides the batch again with all holds read.

If a connection breaks, or its session cannot write, the store tries the batch once more on a new
one. The answer to a COMMIT can be lost, but no operation has its effect twice. The store uses no
session again that failed for another reason than its operations.

Every function blocks, except `applying` with `in_thread`, and belongs in a thread of `Batches`.
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
from service.ledger.decisions import decide
from service.ledger.ids import first_at, hold_id
from service.ledger.rows import Expire, HoldState, Operation, Outcome, Place, Refused
from service.ledger.schema import accounts, api_keys, holds
from service.ledger.sqlite import SQLite
from service.ledger.statements import Wanted

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long a store waits, in seconds."""

    busy: float = 4.0
    """For the locks of other transactions, before the store counts as away."""
    idle: float = 16.0
    """For this process within a transaction, before PostgreSQL ends its session."""


TIMEOUTS: Final = Timeouts()
"""The timeouts of a store whose owner names no others."""

KEPT: Final = 30 * 24 * 3600 * 10**9
"""Nanoseconds that a hold is kept after its end: so long may its settlement wait in a journal."""

_EXPIRED_AT_ONCE: Final = 256
_PRUNED_AT_ONCE: Final = 1000


class StoreError(Exception):
    """The store cannot be reached, is too busy or is full. The text is for operators."""


class _SentAgainError(Exception):
    """A refused Place has a hold: it was placed before."""


class Store:
    """The accounts of one database.

    Args:
        url: The database, as SQLAlchemy names it: `sqlite:///file` or `postgresql://…`.
        clock: Nanoseconds since the Unix epoch, where the database has no clock of its own.
        timeouts: How long it waits.

    Raises:
        ValueError: the address is not of one of the two kinds.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], int] = time.time_ns,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self._database = _database(url, clock, timeouts)
        self.name = self._database.name
        """The file or the address, for operators."""
        self.engine = self._database.engine
        self.writer = self.engine.execution_options(writes=True)
        """The same engine; on SQLite its transactions take the writer's lock when they begin."""
        self._open: set[Any] = set()
        self._undecided: tuple[type[Exception], ...] = (_SentAgainError, *self._database.faults)
        self._interruptions = 0
        self._closings = 0
        for engine in self._database.engines:
            sa.event.listen(engine, "do_connect", self._opens)
            # Known before anything is asked of it: the first question may find a server that froze.
            sa.event.listen(engine, "connect", self._opened, insert=True)
            sa.event.listen(engine, "close", self._closed)
            sa.event.listen(engine, "checkin", self._returned)
            sa.event.listen(engine, "handle_error", self._failed)

    def close(self) -> None:
        """Close all connections, those in use when they are given back; later ones are new."""
        self._closings += 1
        self._database.close()

    def interrupt(self) -> None:
        """Make what the store does now fail with `StoreError`; from any thread.

        For a server that neither answers nor closes its connections. Those that lie idle fail when
        they are used next, and are replaced.
        """
        self._interruptions += 1
        for driver in list(self._open):
            self._database.interrupt(driver)

    def _opens(self, _: object, record: ConnectionPoolEntry, *__: object) -> None:
        # Before it connects: `close` may come meanwhile.
        record.info["closings"] = self._closings

    def _opened(self, driver: Any, _: object) -> None:
        # Nothing tells of those that failed while they were prepared.
        for known in list(self._open):
            if self._database.is_closed(known):
                self._open.discard(known)
        self._open.add(driver)

    def _returned(self, driver: Any, record: ConnectionPoolEntry) -> None:
        if driver is not None and record.info["closings"] != self._closings:
            record.invalidate()  # its pool is gone, and would keep it for good

    def _closed(self, driver: Any, _: object) -> None:
        self._open.discard(driver)

    def _failed(self, context: sa.ExceptionContext) -> None:
        error = context.original_exception
        if isinstance(error, self._database.errors) and not isinstance(
            error, self._database.faults
        ):
            # Whatever is wrong may be wrong with the session alone, and for as long as it lives:
            # one that began while the database was read-only stays so. Those in the pool go, too.
            context.is_disconnect = True
            # The error keeps the cursor, which would keep what is closed half open.
            cursor = getattr(context.execution_context, "cursor", None)
            if cursor is not None:
                cursor.close()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Connect, for queries.

        Raises:
            StoreError: the store is away.
        """
        with self._foreign_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def reading_at_once(self) -> Iterator[sa.Connection]:
        """Connect, for several queries that see one moment.

        Raises:
            StoreError: the store is away.
        """
        with self.reading() as connection:
            if connection.dialect.name == "postgresql":
                # On SQLite every transaction sees one moment.
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Begin a transaction that writes; the end of the block commits it.

        Raises:
            StoreError: the store is away.
        """
        with self._foreign_errors(), self.writer.begin() as connection:
            yield connection

    def ping(self) -> None:
        """See that the store answers.

        Raises:
            StoreError: it does not.
        """
        with self.reading() as connection:
            connection.execute(sa.select(accounts.c.id).limit(1))

    def try_writing(self) -> None:
        """Write what a call makes the store write, and take it back in the same transaction.

        That a store answers and can be locked does not say that its disk takes any more.

        Raises:
            StoreError: it cannot be written.
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
        """Apply operations in one transaction; blocks.

        Raises:
            StoreError: the store is away; what was applied, if anything, is answered the same when
                the operations are sent again.
        """
        return run(self.applying(operations))

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        """Apply operations in one transaction, also on an event loop; raises as `apply`.

        Args:
            operations: The operations.
            in_thread: Calls functions that block. None lets them block the caller.
        """
        interruptions = self._interruptions
        with self._foreign_errors():
            try:
                return await self._apply(operations, in_thread, sent_again=False)
            except self._undecided:
                return await self._apply(operations, in_thread, sent_again=True)
            except ConnectionLostError:
                # The others in the pool are of the same age.
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
            outcomes, changes = decide(rows, operations, now)
            if not sent_again:
                refused = [
                    operation.hold_id
                    for operation, outcome in zip(operations, outcomes, strict=True)
                    if isinstance(outcome, Refused) and isinstance(operation, Place)
                ]
                if refused and await transaction.any_hold(refused):
                    raise _SentAgainError
            transaction.write(rows, changes)
            return outcomes

        return await self._database.transact(decided, in_thread)

    def expired(self) -> list[Expire]:
        """Return the operations that end holds whose lease ran out, some hundred at the most.

        Raises:
            StoreError: the store is away.
        """
        with self.reading() as connection:
            found = connection.execute(
                sa.select(holds.c.id, holds.c.account_id, holds.c.key_id)
                .where(holds.c.state == HoldState.OPEN, holds.c.lease_until <= self.now(connection))
                .order_by(holds.c.lease_until)
                .limit(_EXPIRED_AT_ONCE)
            )
            return [
                Expire(hold_id=row.id, account_id=row.account_id, key_id=row.key_id)
                for row in found
            ]

    def prune(self) -> int:
        """Delete holds that ended long ago, some at a time, and return how many.

        A settlement of such a hold, should one come after all, finds none.

        Raises:
            StoreError: the store is away.
        """
        with self.reading() as connection:
            before = self.now(connection) - KEPT
            # Ids are in the order of their making: those that may go are the first ones.
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
        """Let a transaction run, and wait for locks, for as long as it takes; for operators."""
        self._database.take_time(connection)

    def _foreign_errors(self) -> AbstractContextManager[None]:
        return foreign_errors(self.name, self._database.errors, self._database.faults)


@contextmanager
def foreign_errors(
    name: str = "the store",
    errors: type[Exception] = sqlite3.Error,
    faults: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn what the database raises for being away, locked, full or broken into `StoreError`.

    Args:
        name: What the text begins with.
        errors: What the driver raises, where SQLAlchemy is not in between.
        faults: Those of them that are left as they are.
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
    except UnicodeError as error:  # of a host's name that is too long to be looked up
        raise StoreError(f"{name}: the name of the host cannot be looked up") from error


def _text(name: str, error: BaseException | None) -> str:
    """Return the first line of an error: the others are advice, or the statement."""
    return f"{name}: {str(error).strip().partition(chr(10))[0]}"


def _database(url: str, clock: Callable[[], int], timeouts: Timeouts) -> Database:
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise ValueError("not a database address") from error
    if parsed.drivername == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        if parsed.query:
            raise ValueError("a SQLite file takes no options")
        return SQLite(parsed, clock=clock, busy_timeout=timeouts.busy)
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        # What stands behind an @ of a password would be taken for the host's, and be told.
        if "@" in (parsed.host or ""):
            raise ValueError("an @ of the password has to be written as %40")
        # The driver is an extra; the embedded default does without it.
        try:
            from service.ledger.postgres import PostgreSQL  # noqa: PLC0415
        except ImportError as error:
            raise ValueError("PostgreSQL needs the extra `postgres`") from error
        try:
            return PostgreSQL(parsed, busy_timeout=timeouts.busy, idle_timeout=timeouts.idle)
        except exc.ArgumentError as error:  # of its query
            raise ValueError("not a database address") from error
    raise ValueError("neither sqlite:///file nor postgresql://…")

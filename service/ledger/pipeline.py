"""libpq's pipeline mode: statements that are sent together, and whose answers are read together.

    send(BEGIN) · send(LOCK) · send(READ) ─► receive()     one round trip, three results
    send(WRITE) · send(COMMIT)            ─► finish()      another, and the pipeline is over

A round trip is a step of work: an event loop can wait for it as well as a thread.

In psycopg's own pipeline mode each statement costs a cursor, a write to the socket and a wake-up of
the server, which is two thirds of what a small batch takes. This stands on the module that psycopg
offers for such cases, `psycopg.pq`. Parameters and results are text.

After an error the pipeline is of no more use, and neither is its connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import psycopg
from psycopg import errors, waiting
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from service.ledger.steps import Step, Work, step

_GOOD: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_ENDED: Final = ("FATAL", "PANIC")
_OF_THE_SESSION: Final = (
    "08",  # connection exceptions, also of a proxy that lost its server
    "25006",  # a transaction that may only read: a standby, or default_transaction_read_only
    "26000",  # a prepared statement that is gone: DISCARD ALL, or another server behind a proxy
    "57P",  # the server stops, crashed or starts; the session was idle for too long
)
"""How SQLSTATEs begin of errors that are no fault of a statement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStatement:
    """A statement that each connection prepares once."""

    name: bytes
    text: bytes
    """With `$1` and so on in the place of parameters."""


def prepare(connection: PGconn, statements: Sequence[PreparedStatement]) -> None:
    """Prepare statements on a new connection.

    Raises:
        psycopg.Error: the server refuses one, or is gone.
    """
    for statement in statements:
        _check(connection.prepare(statement.name, statement.text))


def is_of_session(error: psycopg.Error) -> bool:
    """Return whether a statement failed for its session: a new one may do it.

    The server closes the connection with some of these errors. Others it would repeat for as long
    as the session lives, whatever becomes of the server behind the address meanwhile.
    """
    state = error.sqlstate or ""
    return error.diag.severity_nonlocalized in _ENDED or state.startswith(_OF_THE_SESSION)


class Pipeline:
    """One pipeline of a connection, which nothing else uses meanwhile.

    Args:
        connection: It has prepared the statements.
        answer_within: Seconds of silence after which the server counts as gone.

    Every function raises `psycopg.Error`: what the server says, or that it is gone.
    """

    def __init__(self, connection: PGconn, *, answer_within: float) -> None:
        self._connection = connection
        self._answer_within = answer_within
        self._sent = 0
        connection.enter_pipeline_mode()

    def send(self, statement: PreparedStatement, *values: bytes) -> None:
        """Have a statement run; it is on its way with `receive` or `finish`."""
        self._connection.send_query_prepared(statement.name, values)
        self._sent += 1

    def receive(self) -> Work[list[PGresult]]:
        """Return the results of what was sent, in order; the pipeline goes on."""
        self._connection.send_flush_request()
        return self._round_trip(self._results())

    def finish(self) -> Work[list[PGresult]]:
        """Return the results of what was sent, in order, and end the pipeline."""
        self._connection.pipeline_sync()
        return self._round_trip(self._last_results())

    def _round_trip(self, results: PQGen[list[PGresult]]) -> Work[list[PGresult]]:
        arguments = results, self._connection.socket, self._answer_within
        # Not `wait`, which is C and hears no Ctrl-C before its time is over.
        block = partial(waiting.wait_selector, *arguments)
        return step(Step(block, partial(waiting.wait_async, *arguments)))

    def _last_results(self) -> PQGen[list[PGresult]]:
        results = yield from self._results()
        yield from self._next()  # of the synchronisation itself
        self._connection.exit_pipeline_mode()
        return results

    def _results(self) -> PQGen[list[PGresult]]:
        while self._connection.flush():
            # A server whose answers are not read does not read on.
            if _heard((yield Wait.RW)) & Ready.R:
                self._connection.consume_input()
        results = []
        for _ in range(self._sent):
            result = yield from self._next()
            if result is None:
                raise psycopg.InterfaceError("a result is missing")
            results.append(_check(result))
            yield from self._next()  # nothing: the end of the statement's results
        self._sent = 0
        return results

    def _next(self) -> PQGen[PGresult | None]:
        while self._connection.is_busy():
            _heard((yield Wait.R))
            self._connection.consume_input()
        return self._connection.get_result()


def _heard(ready: int) -> int:
    if not ready:
        raise psycopg.OperationalError("the server does not answer")
    return ready


def _check(result: PGresult) -> PGresult:
    if result.status not in _GOOD:
        raise errors.error_from_result(result)
    return result

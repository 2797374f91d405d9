"""libpq's pipeline mode: statements that are sent together, and whose results are read together.

    send(BEGIN), send(LOCK), send(READ) -> await receive()     a round trip, three results
    send(WRITE), send(COMMIT)           -> await finish()      another one, which ends the pipeline

psycopg's own pipeline mode makes a cursor, a write to the socket and a wake-up of the server for
each statement. This module uses `psycopg.pq`, which psycopg offers for such cases. Parameters and
results are text.

After an error, neither the pipeline nor its connection can be used again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import errors, waiting
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

_GOOD: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStatement:
    """A statement that each connection prepares once."""

    name: bytes
    text: bytes
    """Its parameters are `$1` and so on."""


def prepare(connection: PGconn, statements: Sequence[PreparedStatement]) -> None:
    """Prepare statements on a new connection.

    Raises:
        psycopg.Error: The server rejects a statement, or is gone.
    """
    for statement in statements:
        check(connection.prepare(statement.name, statement.text))


class Pipeline:
    """One pipeline of a connection, which must not be used otherwise at the same time.

    Args:
        connection: A connection.
        answer_within: The maximum silence of the server, in seconds.
        blocks: Whether the coroutines block the thread instead of waiting on an event loop.
        prepared: Whether the connection has prepared the statements. If not, the pipeline sends
            their text.

    Every function raises `psycopg.Error`: an error of the server, or that the server is gone.
    """

    def __init__(
        self, connection: PGconn, *, answer_within: float, blocks: bool, prepared: bool = True
    ) -> None:
        self._connection = connection
        self._answer_within = answer_within
        self._blocks = blocks
        self._prepared = prepared
        self._sent = 0
        connection.enter_pipeline_mode()

    def send(self, statement: PreparedStatement, *values: bytes) -> None:
        """Buffer a statement; `receive` or `finish` sends it."""
        if self._prepared:
            self._connection.send_query_prepared(statement.name, values)
        else:
            self._connection.send_query_params(statement.text, values)
        self._sent += 1

    async def receive(self) -> list[PGresult]:
        """Return the results of the statements sent since the last call, in order."""
        self._connection.send_flush_request()
        return await self._round_trip(self._results())

    async def finish(self) -> list[PGresult]:
        """Return the results as `receive` does, and end the pipeline."""
        self._connection.pipeline_sync()
        return await self._round_trip(self._last_results())

    async def _round_trip(self, results: PQGen[list[PGresult]]) -> list[PGresult]:
        socket = self._connection.socket
        if self._blocks:
            # `waiting.wait` is written in C and would react to Ctrl-C only after its timeout.
            return waiting.wait_selector(results, socket, self._answer_within)
        return await waiting.wait_async(results, socket, self._answer_within)

    # The generators below yield the socket events to wait for, and receive those that occurred.

    def _results(self) -> PQGen[list[PGresult]]:
        while self._connection.flush():
            # Read results while sending: a server whose results are not read stops reading.
            if _heard((yield Wait.RW)) & Ready.R:
                self._connection.consume_input()
        results = []
        for _ in range(self._sent):
            result = yield from self._next()
            if result is None:
                raise psycopg.InterfaceError("a result is missing")
            results.append(check(result))
            yield from self._next()  # None, which ends the results of the statement
        self._sent = 0
        return results

    def _last_results(self) -> PQGen[list[PGresult]]:
        results = yield from self._results()
        yield from self._next()  # the result of the synchronization itself
        self._connection.exit_pipeline_mode()
        return results

    def _next(self) -> PQGen[PGresult | None]:
        while self._connection.is_busy():
            _heard((yield Wait.R))
            self._connection.consume_input()
        return self._connection.get_result()


def _heard(ready: int) -> int:
    """Return the socket events. Raise if there are none, because the time is over."""
    if not ready:
        raise psycopg.OperationalError("the server does not answer")
    return ready


def check(result: PGresult) -> PGresult:
    """Return a result, unless it is an error.

    Raises:
        psycopg.Error: The result is this error.
    """
    if result.status not in _GOOD:
        raise errors.error_from_result(result)
    return result

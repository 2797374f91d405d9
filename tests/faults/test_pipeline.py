"""Round trips to a server that is slow, silent or gone, in a thread and on an event loop."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest
from psycopg.abc import PQGen
from psycopg.pq.abc import PGresult

from service.ledger.database import run
from service.ledger.pipeline import Pipeline, PreparedStatement, prepare
from tests.support.postgres import Server

_LENGTH: Final = PreparedStatement(name=b"length", text=b"SELECT length($1::text)")
_DIVIDE: Final = PreparedStatement(name=b"divide", text=b"SELECT 1 / $1::int")


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to wait for a round trip."""

    blocks: bool
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    def pipeline(
        self, connection: psycopg.Connection[Any], *, answer_within: float = 10.0
    ) -> Pipeline:
        return Pipeline(connection.pgconn, answer_within=answer_within, blocks=self.blocks)


WAYS: Final = pytest.mark.parametrize(
    "way",
    [Way(blocks=True, run=run), Way(blocks=False, run=asyncio.run)],
    ids=["in a thread", "on a loop"],
)


@pytest.fixture
def connection(postgres: Server) -> Iterator[psycopg.Connection[Any]]:
    with closing(postgres.connect("postgres")) as connection:
        prepare(connection.pgconn, (_LENGTH, _DIVIDE))
        yield connection


async def _lengths(pipeline: Pipeline, *texts: bytes) -> list[int]:
    for text in texts:
        pipeline.send(_LENGTH, text)
    results = await pipeline.finish()
    return [int(result.get_value(0, 0) or 0) for result in results]


@WAYS
def test_more_than_a_socket_holds_is_sent(connection: psycopg.Connection[Any], way: Way) -> None:
    pipeline = way.pipeline(connection)
    sizes = [3_000_000, 1, 5_000_000]
    assert way.run(_lengths(pipeline, *(b"x" * size for size in sizes))) == sizes


@WAYS
@pytest.mark.parametrize("size", [1, 20_000_000])
def test_a_server_that_falls_silent_is_given_up(
    postgres: Server, connection: psycopg.Connection[Any], way: Way, size: int
) -> None:
    pipeline = way.pipeline(connection, answer_within=0.05)
    with (
        postgres.frozen(),
        pytest.raises(psycopg.OperationalError, match="does not answer"),
    ):
        way.run(_lengths(pipeline, b"x" * size))


class Interrupted(Pipeline):
    """Raises KeyboardInterrupt while it waits, as Ctrl-C does."""

    def _next(self) -> PQGen[PGresult | None]:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        return (yield from super()._next())


def test_who_waits_can_be_interrupted(
    postgres: Server, connection: psycopg.Connection[Any]
) -> None:
    pipeline = Interrupted(connection.pgconn, answer_within=10.0, blocks=True)
    ended = threading.Event()
    in_time: list[bool] = []
    watch = threading.Thread(target=lambda: in_time.append(ended.wait(5)))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    watch.start()
    try:
        with postgres.frozen(), pytest.raises(KeyboardInterrupt):
            run(_lengths(pipeline, b"x"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        ended.set()
        watch.join()
        signal.signal(signal.SIGALRM, before)
    assert in_time == [True]


@WAYS
def test_a_server_that_is_gone_is_told_at_once(
    postgres: Server, connection: psycopg.Connection[Any], way: Way
) -> None:
    pipeline = way.pipeline(connection)
    with postgres.connect("postgres") as other:
        other.execute("SELECT pg_terminate_backend(%s)", (connection.pgconn.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        way.run(_lengths(pipeline, b"x"))


@WAYS
def test_the_error_of_a_statement_is_told(connection: psycopg.Connection[Any], way: Way) -> None:
    pipeline = way.pipeline(connection)
    pipeline.send(_DIVIDE, b"0")
    with pytest.raises(psycopg.DataError, match="division by zero"):
        way.run(pipeline.receive())

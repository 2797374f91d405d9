"""What admission and settlement cost: 32 callers, each placing and settling, through `Batches`.

    32 callers ──► Batches ──► Store ──► SQLite, a file; PostgreSQL, a server on a local socket

    saturated    each caller begins its next request at once
    paced        each request works for 10 to 30 ms between its hold and its settlement
    usual        it works for 125 to 375 ms, as a short answer of a model takes

Callers that all work for the same time would come in waves of 32.

On SQLite, the same is measured with events, which nobody sends, and with every feature in use: the
key belongs to a group of a group, all three have a budget for each window, events are on, and each
request has an idempotency key and an answer to store.

CPU is that of this process, the kernel's part included; on PostgreSQL the server's comes on top.
There the same is measured with empty transactions, too: two round trips and a flush, which is what
the machine and the server take of the times.

Give addresses of empty databases to measure those instead. Prints a table; asserts nothing.
"""

import asyncio
import gc
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psycopg
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from service.accounts.budget_rows import BudgetChange
from service.accounts.directory import Directory
from service.ledger.batches import Batches
from service.ledger.budgets import Window
from service.ledger.database import InThread
from service.ledger.ids import hold_id
from service.ledger.migrations import migrate
from service.ledger.pipeline import Pipeline, PreparedStatement, prepare
from service.ledger.postgres_statements import BEGIN, COMMIT
from service.ledger.rows import Claim, Grant, Operation, Outcome, Place, Placed, Settle
from service.ledger.store import Store
from tests.support.postgres import binaries, running

CALLERS = 32
LOADS = (("saturated", 0.0, 6000), ("paced", 0.02, 6000), ("usual", 0.25, 1000))
"""Their names, seconds of work, and how many requests are made."""
WARM_UP = 500


class Empty(Store):
    """Does nothing, in as many round trips to the server; what it writes is a message to flush."""

    _MESSAGE = PreparedStatement(
        name=b"message", text=b"SELECT pg_logical_emit_message(true, 'bench', 'message')"
    )

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._connection = psycopg.connect(url)
        self._connection.autocommit = True
        prepare(self._connection.pgconn, (self._MESSAGE, BEGIN, COMMIT))

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        pipeline = Pipeline(self._connection.pgconn, answer_within=10.0, blocks=in_thread is None)
        pipeline.send(BEGIN)
        pipeline.send(self._MESSAGE)
        await pipeline.receive()
        pipeline.send(COMMIT)
        await pipeline.finish()
        return [Placed(requests=None, tokens=None) for _ in operations]

    def close(self) -> None:
        self._connection.close()
        super().close()


ANSWER = random.Random(1).randbytes(1000)  # noqa: S311  (a benchmark's)
"""A stored answer: that of some 200 tokens, compressed."""


class Bench:
    """An account with a key that has every limit, none of which is ever reached.

    Args:
        store: Where the account is made.
        measured: What is measured, where that is another one.
        everything: Whether the account has groups and budgets, and requests idempotency keys.
    """

    def __init__(
        self, store: Store, measured: Store | None = None, *, everything: bool = False
    ) -> None:
        directory = Directory(store)
        account = payer = directory.create_account(f"bench-{uuid4().hex}")
        parents: tuple[int, ...] = ()
        for _ in range(2 if everything else 0):
            parents = (account.id, *parents)
            account = directory.create_account(f"bench-{uuid4().hex}", parent=account.name)
        key, _ = directory.create_key(
            account.name,
            "bench",
            models=("gpt-4o", "gpt-4o-mini"),
            requests_per_minute=10**9,
            tokens_per_minute=10**10,
            concurrency=10**6,
        )
        self._account_id, self._key_id, self._parents = account.id, key.id, parents
        self._everything = everything
        if everything:
            budgets = [BudgetChange(window=window, limit=10**15) for window in Window]
            names = [row.name for row in directory.accounts(limit=1000) if row.id in parents]
            for name in (*names, account.name):
                directory.budgets.set(name, changes=budgets, time_zone="Europe/Vienna")
            directory.budgets.set(account.name, "bench", changes=budgets)
        self._batches = Batches(measured or store)
        grant = Grant(account_id=payer.id, amount=10**15, idempotency_id="bench")
        store.apply([grant])

    async def run(
        self, requests: int, work: float
    ) -> tuple[float, float, list[float], list[float]]:
        """Return the CPU and wall seconds, and how long each hold and each settlement took."""
        left = requests
        chance = random.Random(1)  # noqa: S311  (a benchmark's)
        placing: list[float] = []
        settling: list[float] = []

        async def caller() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                name = hold_id(time.time_ns())
                began = time.perf_counter()
                place = self._place(name)
                placed = await self._batches.submit(place)
                placing.append(time.perf_counter() - began)
                if not isinstance(placed, Placed):
                    raise TypeError(placed)
                if work:
                    await asyncio.sleep(work * chance.uniform(0.5, 1.5))
                began = time.perf_counter()
                await self._batches.submit(
                    Settle(
                        hold_id=name,
                        account_id=self._account_id,
                        key_id=self._key_id,
                        charge=600_000,
                        prompt_tokens=400,
                        completion_tokens=200,
                        place=place,
                        parents=self._parents,
                        answer=ANSWER if self._everything else None,
                    )
                )
                settling.append(time.perf_counter() - began)

        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return time.process_time() - cpu, time.perf_counter() - wall, placing, settling

    def _place(self, name: str) -> Place:
        claim = Claim(
            id=f"{self._key_id}:{name}",
            body=name,
            runner="bench",
            lease=20 * 10**9,
            keep=3600 * 10**9,
            most=2**40,
        )
        return Place(
            hold_id=name,
            account_id=self._account_id,
            key_id=self._key_id,
            amount=1_000_000,
            tokens=1000,
            model="gpt-4o-mini",
            owner="bench",
            lease=60 * 10**9,
            parents=self._parents,
            claim=claim if self._everything else None,
        )

    async def close(self) -> None:
        await self._batches.close()


async def measure(url: str) -> None:
    store = Store(url)
    await asyncio.to_thread(migrate, store)
    benches = {store.engine.dialect.name: Bench(store)}
    with ExitStack() as stores:
        stores.callback(store.close)
        if store.engine.dialect.name == "sqlite":
            reporting = Store(url, thresholds=(50, 80, 100))
            stores.callback(reporting.close)
            benches["with events"] = Bench(store, reporting)
            benches["everything"] = Bench(store, reporting, everything=True)
        if store.engine.dialect.name == "postgresql":
            empty = Empty(url)
            stores.callback(empty.close)
            benches["empty"] = Bench(store, empty)
        for bench in benches.values():
            await bench.run(WARM_UP, 0.0)
        gc.freeze()  # as the service does once it has started
        for name, work, requests in LOADS:
            for what, bench in benches.items():
                cpu, wall, placing, settling = await bench.run(requests, work)
                both = [one + other for one, other in zip(placing, settling, strict=True)]
                print(
                    f"{what:<12}{name:<11}{cpu / requests * 1e6:>10.1f}"
                    f"{requests / wall:>12.0f}"
                    f"{_latency(placing)}{_latency(settling)}{_latency(both)}"
                )
        for bench in benches.values():
            await bench.close()


def _latency(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    middle, high = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"{middle * 1e3:>9.2f} /{high * 1e3:>6.1f}"


def main() -> None:
    print(f"{CALLERS} callers; CPU in µs per request, times p50 / p99 in ms")
    print(
        f"{'engine':<12}{'load':<11}{'CPU':>10}{'requests/s':>12}"
        f"{'hold':>17}{'settlement':>17}{'both':>17}"
    )
    if urls := sys.argv[1:]:
        for url in urls:
            uvloop.run(measure(url))
        return
    with tempfile.TemporaryDirectory() as directory:
        uvloop.run(measure(f"sqlite:///{os.path.join(directory, 'accounts.db')}"))
    if binaries() is None:
        print("postgresql  its binaries are not here")
        return
    with running() as server:
        uvloop.run(measure(server.url(server.database())))


if __name__ == "__main__":
    main()

"""Further processes that use a store, forked from one that has imported everything.

    Crew(8).each(function, …)     run it in 8 processes at once, all released together
    start(function, …)            run it in a process that the test can kill

The functions that run there are here too, so that the first process imports them once.
"""

import asyncio
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from uuid import uuid4

from service.ledger.batches import Batches
from service.ledger.migrations import migrate
from service.ledger.rows import Placed
from service.ledger.store import Store, StoreError
from tests.faults.stores import Team

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])

_WITHIN = 60.0
_barrier: Any = None


def _meet(barrier: Any) -> None:
    global _barrier  # noqa: PLW0603  (a worker process has one)
    _barrier = barrier


def _released(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    _barrier.wait(_WITHIN)
    return function(*arguments)


class Crew:
    """A number of processes that begin together.

    Args:
        size: How many.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        barrier = CONTEXT.Barrier(size)
        self._pool = ProcessPoolExecutor(size, CONTEXT, _meet, (barrier,))

    def each(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run a function in each of the processes; its last argument is the worker's number."""
        running = [
            # The barrier starts all processes together.
            self._pool.submit(_released, function, (*arguments, number))
            for number in range(self._size)
        ]
        return [one.result(_WITHIN) for one in running]

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()


def start(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Run a function in a process."""
    process = CONTEXT.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


# ------------------------------------------------------------------------ functions of workers


def place_many(url: str, team: Team, clock: int | None, count: int, _: int) -> list[str]:
    """Request several holds at once, and return the ids of those that were placed."""
    return asyncio.run(_place_many(url, team, clock, count))


async def _place_many(url: str, team: Team, clock: int | None, count: int) -> list[str]:
    store = Store(url) if clock is None else Store(url, clock=lambda: clock)
    batches = Batches(store)
    ids = [uuid4().hex for _ in range(count)]
    # Each hold takes ten tokens.
    outcomes = await asyncio.gather(
        *(batches.submit(team.place(id_, amount=10, tokens=10)) for id_ in ids)
    )
    await batches.close()
    store.close()
    return [id_ for id_, made in zip(ids, outcomes, strict=True) if isinstance(made, Placed)]


def place_and_settle(url: str, team: Team, count: int, _: int) -> int:
    """Place and settle holds of ten for seven each, one after the other, and return the charges."""
    store = Store(url)
    charged = 0
    for _number in range(count):
        id_ = uuid4().hex
        if isinstance(store.apply([team.place(id_)])[0], Placed):
            store.apply([team.settle(id_, charge=7)])
            charged += 7
    store.close()
    return charged


def migrate_once(url: str, _: int) -> None:
    """Migrate a schema to HEAD."""
    store = Store(url)
    migrate(store)
    store.close()


def cross(url: str, teams: Sequence[Team], rounds: int, number: int) -> Counter[int]:
    """Apply batches that touch many accounts in random orders, and return the charges of each."""
    chance = random.Random(number)  # noqa: S311  (a test's)
    store = Store(url)
    charged: Counter[int] = Counter()
    for _ in range(rounds):
        chosen = chance.sample(teams, len(teams) // 2)
        ids = [uuid4().hex for _ in chosen]
        store.apply([team.place(id_) for team, id_ in zip(chosen, ids, strict=True)])
        pairs = list(zip(chosen, ids, strict=True))
        chance.shuffle(pairs)
        store.apply([team.settle(id_) for team, id_ in pairs])
        charged.update({team.account_id: 10 for team in chosen})
    store.close()
    return charged


def work_until_killed(url: str, team: Team, journal: Path, ready: Connection) -> None:
    """Place and settle with 16 callers, and note each acknowledgement before going on.

    A note is a write to a file, which outlives a SIGKILL as soon as the call returns.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_work(url, team, journal, ready))


async def _work(url: str, team: Team, journal: Path, ready: Connection) -> None:
    test = multiprocessing.parent_process()
    assert test is not None
    # If the test itself is killed, nobody else ends this process, which would fill the disk.
    asyncio.get_running_loop().add_reader(test.sentinel, os._exit, 1)
    batches = Batches(Store(url))
    notes = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    chance = random.Random()  # noqa: S311  (a test's)

    def note(*words: object) -> None:
        # With a line break before and after, so that an incomplete note damages no other.
        os.write(notes, ("\n" + " ".join(map(str, words)) + " .\n").encode())

    async def call() -> None:
        while True:
            hold_id = uuid4().hex
            try:
                if not isinstance(await batches.submit(team.place(hold_id, lease=2)), Placed):
                    continue
                note("placed", hold_id)
                charge = chance.randint(0, 10)
                note("settling", hold_id, charge)
                await batches.submit(team.settle(hold_id, charge))
                note("settled", hold_id, charge)
            except StoreError:
                await asyncio.sleep(0.01)
                continue
            if not ready.closed:
                ready.send(None)
                ready.close()

    await asyncio.gather(*(call() for _ in range(16)))


def open_as(user: int | None, url: str, answer: Connection) -> None:
    """Open a store as another user, as a service does, and return the result."""
    if user is not None:
        os.setgid(user)
        os.setuid(user)
    try:
        store = Store(url)
        migrate(store)
        store.try_writing()
    except StoreError as error:
        answer.send(str(error))
    else:
        answer.send(None)


def write_after_read_only(user: int | None, path: Path, team: Team, answer: Connection) -> None:
    """Use a store while its file is read-only and afterwards, and return the results.

    Its sessions begin while the file is read-only.
    """
    if user is not None:
        os.setgid(user)
        os.setuid(user)
    store = Store(f"sqlite:///{path}")
    place = [team.place("a")]
    said: list[str | None] = []

    def attempt(function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except StoreError as error:
            said.append(str(error))
        else:
            said.append(None)

    path.chmod(0o400)
    attempt(store.apply, place)
    attempt(store.try_writing)
    with store.reading(), store.reading(), store.reading():
        attempt(store.ping)
    path.chmod(0o600)
    for _ in range(4):
        attempt(store.apply, place)
        attempt(store.try_writing)
    store.close()
    answer.send(said)


def lock(path: str, ready: Connection, release: Connection) -> None:
    """Hold the writer's lock of a file until the test releases it."""
    store = Store(f"sqlite:///{path}")
    with store.writing():
        ready.send(None)
        release.recv()
    store.close()

"""A process that uses a SQLite store, and what its disk can contain if the power fails.

    record(directory) -> step, step, …         each with its files as they are, and as flushed
    remains(before, after) -> files, files, …  what a power loss during `after` can leave

A step is a batch of operations that the store acknowledged. `power_loss.c`, which the process
preloads, copies each file when it is flushed. Whatever was written later can be on disk or not.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from service.ledger.ids import hold_id
from service.ledger.migrations import migrate
from service.ledger.rows import Operation, Place, Settle
from service.ledger.store import Store
from tests.faults.stores import SECOND, Team
from tests.support.tree import ROOT

NAME: Final = "accounts.db"
LOG: Final = f"{NAME}-wal"
CREDIT: Final = 1000
STEPS: Final = 60
BEGINNING: Final = 1_800_000_000 * SECOND

_FRAMES: Final = 32
"""The size of the head of the log."""
_FRAME: Final = 24 + 4096
_SECTOR: Final = 512
_PAGES: Final = 40
"""The length of the log at which SQLite copies it to the database: short, so that it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """The contents of the database file and of its log."""

    database: bytes
    log: bytes

    @classmethod
    def of(cls, directory: Path) -> "Files":
        """Read them. A file that does not exist is empty."""
        return cls(
            **{
                name: file.read_bytes() if (file := directory / path).exists() else b""
                for name, path in (("database", NAME), ("log", LOG))
            }
        )

    def write(self, directory: Path) -> str:
        """Write them, and return the URL of the store."""
        (directory / f"{NAME}-shm").unlink(missing_ok=True)
        (directory / NAME).write_bytes(self.database)
        (directory / LOG).write_bytes(self.log)
        return f"sqlite:///{directory / NAME}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A batch of operations that the store acknowledged."""

    placed: Sequence[Place]
    settled: Sequence[Settle]
    written: Files
    flushed: Files


def record(directory: Path) -> list[Step]:
    """Use a store in a process, and return its steps."""
    library = directory / "power_loss.so"
    source = Path(__file__).with_suffix(".c")
    compiler = ("cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl")
    subprocess.run(compiler, check=True, timeout=60)  # noqa: S603  (our own file)
    (directory / "flushed").mkdir()
    subprocess.run(  # noqa: S603  (this module)
        (sys.executable, "-m", __name__, str(directory)),
        check=True,
        cwd=ROOT,
        timeout=60,
        env={
            **os.environ,
            "LD_PRELOAD": str(library),
            "FLUSHED": str(directory / "flushed"),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
        },
    )
    return [_read(step) for step in sorted(directory.glob("step-*"))]


def _read(step: Path) -> Step:
    batch = (step / "batch").read_bytes()
    placed, settled = msgspec.json.decode(batch, type=tuple[list[Place], list[Settle]])
    return Step(
        placed=placed,
        settled=settled,
        written=Files.of(step / "written"),
        flushed=Files.of(step / "flushed"),
    )


def remains(before: Step, after: Step, chance: random.Random) -> Iterator[Files]:
    """Yield what a power loss between two steps can leave on disk."""
    old, new = before.flushed, after.written
    # The log, cut at each frame and within it. The bytes behind are those of before.
    ends = range(_FRAMES, len(new.log) + _FRAME, _FRAME)
    for end in sorted({0, 8, *ends, *(end + chance.randrange(_FRAME) for end in ends)}):
        if new.log[:end] + old.log[end:] not in {old.log, new.log}:
            yield Files(database=old.database, log=new.log[:end] + old.log[end:])
    yield old
    # A disk can write sectors in any order.
    yield Files(database=old.database, log=_mixed(old.log, new.log, chance))
    # SQLite copies pages to the database only from a log that was flushed.
    log = after.flushed.log
    yield Files(database=_mixed(old.database, new.database, chance), log=log)
    yield Files(database=new.database, log=log)


def _mixed(old: bytes, new: bytes, chance: random.Random) -> bytes:
    sectors = range(0, max(len(old), len(new)), _SECTOR)
    mixed = (chance.choice((old, new))[at : at + _SECTOR].ljust(_SECTOR, b"\0") for at in sectors)
    return b"".join(mixed)


# -------------------------------------------------------------------------------- the process


def _work(directory: Path) -> None:
    chance = random.Random(3)  # noqa: S311  (a test's)
    now = [BEGINNING]
    stores = [_store(directory, now) for _ in range(2)]
    migrate(stores[0])
    team = Team.create(stores[0], credit=CREDIT)
    (directory / "team").write_text(json.dumps([team.account_id, team.key_id, team.created_at]))
    open_: list[Place] = []
    for number in range(STEPS):
        now[0] += SECOND
        placed = [
            team.place(hold_id(now[0] + n), amount=chance.randint(1, 15))
            for n in range(chance.randint(0, 3))
        ]
        # Most batches have only holds, because only they are not flushed.
        ending = chance.sample(open_, min(len(open_), chance.choice((0, 0, 1, 3))))
        settled = [
            msgspec.structs.replace(
                team.settle(place.hold_id, chance.randint(0, place.amount)), place=place
            )
            for place in ending
        ]
        batch: list[Operation] = [*placed, *settled]
        outcomes: list[Any] = stores[number % 2].apply(batch)
        placed = [
            place
            for place, outcome in zip(placed, outcomes, strict=False)
            if type(outcome).__name__ == "Placed"
        ]
        open_ = [*(place for place in open_ if place not in ending), *placed]
        step = directory / f"step-{number:03}"
        step.mkdir()
        (step / "batch").write_bytes(msgspec.json.encode((placed, settled)))
        shutil.copytree(directory / "flushed", step / "flushed")
        (step / "written").mkdir()
        for name in (NAME, LOG):
            shutil.copy(directory / name, step / "written")


def _store(directory: Path, now: list[int]) -> Store:
    store = Store(f"sqlite:///{directory / NAME}", clock=lambda: now[0])

    @sa.event.listens_for(store.engine, "connect")
    def _(driver: Any, _: object) -> None:
        driver.execute(f"PRAGMA wal_autocheckpoint = {_PAGES}")

    return store


if __name__ == "__main__":
    _work(Path(sys.argv[1]))

"""A copy of a SQLite store, made while the store is in use.

    charges that wait in the journal -> read
    SQLite's online backup           -> a snapshot of one moment, in a new directory
    the charges                      -> applied to the snapshot
    the balances of the snapshot     -> checked
    the snapshot                     -> flushed, and given its name

The journal is read first, so that a charge which moves from the journal to the store meanwhile is
in one of them. A charge in both is applied once.
"""

import os
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import sqlalchemy as sa

from service.accounts.terminal import CommandError
from service.accounts.verification import differences
from service.ledger.batches import LARGEST_BATCH
from service.ledger.journal import Ending, waiting
from service.ledger.schema import accounts, ledger
from service.ledger.store import Store

_NAME: Final = "store"


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """What a backup has."""

    accounts: int
    entries: int
    """Of the ledger."""
    from_journal: int
    """The charges and releases that waited in the journal."""


def back_up(store: Store, file: Path, *, journal: str) -> Backup:
    """Copy a SQLite store into a new file, with the charges that wait in the journal.

    Args:
        store: The store.
        file: The new file. It exists only if the backup is complete.
        journal: The directory of the journal.

    Raises:
        CommandError: The file exists or cannot be written, or the balances do not match the ledger.
        StoreError: The store is away.
    """
    if file.exists():
        raise CommandError(f"the file {file} exists")
    try:
        endings = waiting(journal)
        # In the directory of the file, so that it can get its name by a link.
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=file.parent) as directory:
            path = Path(directory) / _NAME
            _copy(store, path)
            backup = _complete(path, endings, store.thresholds)
            _publish(path, file)
    except FileExistsError as error:
        raise CommandError(f"the file {file} exists") from error
    except (OSError, sqlite3.Error) as error:
        raise CommandError(f"cannot write {file}: {error}") from error
    return backup


def _copy(store: Store, path: Path) -> None:
    path.touch(mode=0o600)
    with store.reading() as connection, closing(sqlite3.connect(path)) as copy:
        cast("sqlite3.Connection", connection.connection.driver_connection).backup(copy)


def _complete(path: Path, endings: Sequence[Ending], thresholds: tuple[int, ...] | None) -> Backup:
    """Apply endings to a copy, with their events, check its balances, and count its rows."""
    copy = Store(f"sqlite:///{path}", thresholds=thresholds)
    try:
        for begin in range(0, len(endings), LARGEST_BATCH):
            copy.apply(endings[begin : begin + LARGEST_BATCH])
        found = [difference.account for difference in differences(copy)]
        if found:
            raise CommandError(
                f"the balance of {found[0]!r} does not match the ledger; run: ledger verify"
            )
        with copy.reading() as connection:
            rows = [
                int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
                for table in (accounts, ledger)
            ]
    finally:
        copy.close()
    return Backup(accounts=rows[0], entries=rows[1], from_journal=len(endings))


def _publish(path: Path, file: Path) -> None:
    """Flush a file and give it a second name, which does not exist."""
    for flushed in (path, path.parent):
        _flush(flushed)
    file.hardlink_to(path)
    _flush(file.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

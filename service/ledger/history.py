"""Notices that the store has forgotten what it had committed.

    mark     the newest ledger entry that this process or an earlier one saw; in a file
    check    the ledger has the mark        -> the newest entry becomes the mark
             the ledger does not have it    -> an error in the log, then the same

The ledger only grows. If an entry is gone, the store is an older copy, a standby that lagged behind
its primary, or another store. The service goes on: a charge names its key and the time at which the
key was created, so that no charge reaches another customer. The log is for the operator, who knows
whether this was intended.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from process import log
from service.ledger.schema import ledger
from service.ledger.store import Store

FILE: Final = "history"
"""The name of the file in the directory of the journal."""
WRITTEN_EVERY: Final = 10.0
"""Seconds between two writes of the file."""

_HINT: Final = "the store is an older copy or another one; see docs/backup.md"
_log = logging.getLogger(__name__)


class Mark(msgspec.Struct, frozen=True):
    """An entry of the ledger, which no other history has: its id and its time of creation."""

    entry: int
    created_at: int


class History:
    """The newest entry that was seen. Its methods block.

    Args:
        store: The store.
        directory: The directory of the file, which exists.
        clock: Returns seconds that pass steadily.
    """

    def __init__(self, store: Store, directory: str, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._path = Path(directory) / FILE
        self._clock = clock
        self._mark = _read(self._path)
        self._written = self._mark
        self._written_at = -WRITTEN_EVERY

    def check(self) -> bool:
        """Check that the store still has the mark, and move the mark to the newest entry.

        Returns:
            Whether the store has it.

        Raises:
            StoreError: The store is away.
        """
        with self._store.reading() as connection:
            has_mark = self._mark is None or _found(connection, self._mark)
            newest = _newest(connection)
        if self._mark is not None and not has_mark:
            _report(self._mark, newest)
        self._mark = newest
        self._write(at_once=not has_mark)
        return has_mark

    def _write(self, *, at_once: bool) -> None:
        if self._mark == self._written:
            return
        now = self._clock()
        if not at_once and now - self._written_at < WRITTEN_EVERY:
            return
        self._written_at = now
        new = self._path.with_name(f"{FILE}-{os.getpid()}")
        with suppress(OSError):  # a full disk: the mark stays in memory
            new.write_bytes(b"" if self._mark is None else msgspec.json.encode(self._mark))
            new.replace(self._path)
            self._written = self._mark


def _read(path: Path) -> Mark | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (OSError, msgspec.MsgspecError):
        return None  # the first start, or a file that a power loss damaged


def _found(connection: sa.Connection, mark: Mark) -> bool:
    wanted = sa.select(ledger.c.created_at).where(ledger.c.id == mark.entry)
    return connection.execute(wanted).scalar_one_or_none() == mark.created_at


def _newest(connection: sa.Connection) -> Mark | None:
    wanted = sa.select(ledger.c.id, ledger.c.created_at).order_by(ledger.c.id.desc()).limit(1)
    found = connection.execute(wanted).one_or_none()
    return None if found is None else Mark(found.id, found.created_at)


def _time(mark: Mark) -> str:
    return datetime.fromtimestamp(mark.created_at / 10**9, UTC).isoformat(timespec="milliseconds")


def _report(mark: Mark, newest: Mark | None) -> None:
    _log.error(
        "store has forgotten charges",
        extra=log.fields(
            entry=mark.entry,
            time=_time(mark),
            newest=newest and newest.entry,
            newest_time=newest and _time(newest),
            hint=_HINT,
        ),
    )

"""Settlements that wait for the store: a local file that outlives the process.

    the store is away ─► append, on the disk ─► the caller is answered
    the store is back ─► replay, oldest first ─► forget

Each process has a file of its own in the directory, locked while it lives. What a process left
behind is replayed by the next one that starts there. Replaying twice is harmless: a hold is settled
once. A line that is torn was never acknowledged: it is skipped.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final
from uuid import uuid4

import msgspec

from service.accounts.rows import Release, Settle

Ending = Settle | Release
"""The operations that are kept."""

_SUFFIX: Final = ".journal"
_LINE: Final = msgspec.json.Decoder(Ending)


class JournalError(OSError):
    """The directory cannot be written; the text names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What waits for the store at a moment."""

    endings: Sequence[Ending]
    """Oldest first, what other processes left before our own."""
    size: int
    """How much of our own file that is, in bytes."""


class Journal:
    """The journal of one process. Its functions block; they may be called from any thread.

    Args:
        directory: Where the files are; made if it is not there.

    Raises:
        JournalError: the directory cannot be made or written.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._path = self._directory / f"{uuid4().hex}{_SUFFIX}"
        self._orphans: dict[int, Path] = {}
        self._file = -1
        self._lock = Lock()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A file that was just made is not locked yet: another process must not find it so.
            place = os.open(self._directory, os.O_RDONLY)
            try:
                fcntl.flock(place, fcntl.LOCK_EX)
                self._take_orphans()
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
                self._file = os.open(self._path, flags, mode=0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX)
                # The name has to outlive a power loss, too.
                os.fsync(place)
            finally:
                os.close(place)
        except OSError as error:
            self._close_all()
            raise JournalError(f"{directory}: {error.strerror}") from error

    def _take_orphans(self) -> None:
        """Lock the files that processes left which live no more."""
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # its process just closed it, empty
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)  # of a process that lives
                continue
            self._orphans[file] = path

    def append(self, ending: Ending) -> None:
        """Keep an operation; it is on the disk when this returns.

        Raises:
            OSError: it cannot be written.
        """
        line = msgspec.json.encode(ending) + b"\n"
        with self._lock:
            before = os.fstat(self._file).st_size
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError:
                # A piece of a line would spoil the next one, too.
                with suppress(OSError):
                    os.ftruncate(self._file, before)
                raise

    def kept(self) -> Kept:
        """Return what waits for the store."""
        with self._lock:
            own = _content(self._file)
            files = [*map(_content, self._orphans), own]
        return Kept(
            endings=[ending for content in files for ending in _endings(content)], size=len(own)
        )

    def is_empty(self) -> bool:
        """Whether nothing waits."""
        with self._lock:
            return not self._orphans and os.fstat(self._file).st_size == 0

    def forget(self, kept: Kept) -> bool:
        """Forget what is in the store now, if nothing was appended since it was read.

        Returns:
            Whether it is forgotten; otherwise all of it is read again, which is harmless.

        Raises:
            OSError: the disk fails.
        """
        with self._lock:
            if os.fstat(self._file).st_size != kept.size:
                return False
            while self._orphans:
                file, path = self._orphans.popitem()
                path.unlink(missing_ok=True)
                os.close(file)
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
            return True

    def close(self) -> None:
        """Close the file, and remove it where nothing waits in it."""
        with self._lock:
            if os.fstat(self._file).st_size == 0:
                self._path.unlink(missing_ok=True)
            self._close_all()

    def _close_all(self) -> None:
        for file in self._orphans:
            os.close(file)
        self._orphans.clear()
        if self._file != -1:
            os.close(self._file)
            self._file = -1


def _content(file: int) -> bytes:
    size = os.fstat(file).st_size
    content = b""
    while len(content) < size:
        piece = os.pread(file, size - len(content), len(content))
        if not piece:
            break
        content += piece
    return content


def _endings(content: bytes) -> Iterator[Ending]:
    for line in content.split(b"\n")[:-1]:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            yield _LINE.decode(line)

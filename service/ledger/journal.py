"""Settlements that wait for the store: a local file that outlives the process.

    the store is away ─► append, on the disk ─► the caller is answered
    the store is back ─► replay, oldest first ─► forget
    the disk fails too ─► in memory, until one of them is back: `Unwritten`
    the store knows no such hold, or a line is none of ours ─► set aside ─► forget

Each process has a file of its own in the directory, locked while it lives. What a process left
behind is replayed by the next one that starts there. Replaying twice is harmless: a hold is settled
once. A last line that is torn was never acknowledged: it is skipped.

What was set aside is in a file beside it, whose name ends with `.rejected`. Nobody reads it but
operators: named `.journal`, it is replayed by the next process that starts there.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final
from uuid import uuid4

import msgspec

from process import log
from service.ledger.rows import Release, Settle

Ending = Settle | Release
"""The operations that are kept."""

MOST_UNWRITTEN: Final = 10_000
"""Endings in memory: some megabytes, and as many calls as end in minutes."""

_SUFFIX: Final = ".journal"
_SET_ASIDE: Final = ".rejected"
_LINE: Final = msgspec.json.Decoder(Ending)
_LARGEST: Final = 2**63
"""What is below fits the store's integers."""
_LARGEST_PRODUCT: Final = 2**127
"""A price is a product of two such numbers. The store takes no more of it than was held."""

_log = logging.getLogger(__name__)


class JournalError(OSError):
    """The directory cannot be written; the text names it."""


class Unwritten:
    """Endings that neither the store nor the journal took, in memory until one of them does.

    Of use on the event loop only: nothing here waits for the disk.

    Args:
        lost: Told of how many were lost, for there were too many or the process ends.
    """

    def __init__(self, lost: Callable[[int], None]) -> None:
        self._lost = lost
        self._endings: dict[str, Ending] = {}
        self._most = MOST_UNWRITTEN

    def add(self, ending: Ending) -> None:
        """Keep an ending; the oldest is lost where there are too many."""
        self._endings[ending.hold_id] = ending
        while len(self._endings) > self._most:
            self._lose(next(iter(self._endings.values())))

    def endings(self) -> list[Ending]:
        """Return what is kept, the oldest first."""
        return list(self._endings.values())

    def forget(self, endings: Sequence[Ending]) -> None:
        """Forget what the store or the journal has now."""
        for ending in endings:
            if self._endings.get(ending.hold_id) is ending:
                del self._endings[ending.hold_id]

    def close(self) -> None:
        """Say what is lost with the process; what comes later is lost at once."""
        self._most = 0
        for ending in self.endings():
            self._lose(ending)

    def _lose(self, ending: Ending) -> None:
        del self._endings[ending.hold_id]
        self._lost(1)
        # All that it takes to charge it by hand; its hold stands until the lease ends.
        _log.error("a settlement is lost", extra=log.fields(**msgspec.to_builtins(ending)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What waits for the store at a moment."""

    endings: Sequence[Ending]
    """Oldest first, what other processes left before our own."""
    unreadable: Sequence[bytes]
    """Whole lines that are no endings."""
    size: int
    """How much of our own file that is, in bytes."""


class Journal:
    """The journal of one process. Its functions block; they may be called from any thread.

    Args:
        directory: Where the files are; made if it is not there.
        lost: Told of how many endings were lost, being in memory only.

    Raises:
        JournalError: the directory cannot be made or written.
    """

    def __init__(self, directory: str, *, lost: Callable[[int], None] = lambda _: None) -> None:
        self.unwritten = Unwritten(lost)
        """What could not be appended, and is not in the store either."""
        self._directory = Path(directory)
        self._path = self._directory / f"{uuid4().hex}{_SUFFIX}"
        self._orphans: dict[int, Path] = {}
        self._set_aside: set[bytes] = set()
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

    def append(self, *endings: Ending) -> None:
        """Keep operations; they are on the disk when this returns.

        Raises:
            OSError: they cannot be written; none of them is kept.
        """
        lines = b"".join(map(_line, endings))
        with self._lock:
            _append(self._file, lines)

    def append_each(self, endings: Sequence[Ending]) -> Mapping[Ending, Exception]:
        """Keep as many operations as there is room for, with one flush where that is for all.

        Returns:
            Why each of the others is not kept.
        """
        try:
            self.append(*endings)
        except Exception as error:  # noqa: BLE001  (whatever it is, those that are kept are)
            if len(endings) == 1:
                return {endings[0]: error}
            errors: dict[Ending, Exception] = {}
            for ending in endings:
                errors.update(self.append_each((ending,)))
            return errors
        return {}

    def kept(self) -> Kept:
        """Return what waits for the store.

        Raises:
            OSError: it cannot be read.
        """
        with self._lock:
            own = _content(self._file)
            files = [*map(_content, self._orphans), own]
        endings: list[Ending] = []
        unreadable: list[bytes] = []
        for content in files:
            # What follows the last line break is torn, or nothing.
            for line in filter(None, content.split(b"\n")[:-1]):
                ending = _read(line)
                if ending is None:
                    unreadable.append(line)
                else:
                    endings.append(ending)
        return Kept(endings=endings, unreadable=unreadable, size=len(own))

    def is_empty(self) -> bool:
        """Whether nothing waits in files."""
        with self._lock:
            return not self._orphans and os.fstat(self._file).st_size == 0

    def set_aside(self, endings: Sequence[Ending], unreadable: Sequence[bytes]) -> int:
        """Have what the store cannot take on the disk, for operators; before it is forgotten.

        Returns:
            How many of them were not there before.

        Raises:
            OSError: they cannot be written.
        """
        lines = dict.fromkeys((*map(_line, endings), *(line + b"\n" for line in unreadable)))
        with self._lock:
            # They come again where they could not be forgotten.
            new = [line for line in lines if line not in self._set_aside]
            if not new:
                return 0
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            file = os.open(self._path.with_suffix(_SET_ASIDE), flags, mode=0o600)
            try:
                _append(file, b"".join(new))
            finally:
                os.close(file)
            place = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(place)
            finally:
                os.close(place)
            self._set_aside.update(new)
        return len(new)

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
            for file, path in list(self._orphans.items()):
                path.unlink(missing_ok=True)
                del self._orphans[file]
                os.close(file)
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
            self._set_aside.clear()
            return True

    def close(self) -> None:
        """Close the file, and remove it where nothing waits in it. What is in memory is lost."""
        self.unwritten.close()
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


def _append(file: int, lines: bytes) -> None:
    """Write whole lines at the end of a file; they are on the disk when this returns."""
    found = os.fstat(file)
    if not found.st_nlink:
        # What is written to a file without a name is gone with the process.
        raise FileNotFoundError(errno.ENOENT, "the journal's file was deleted")
    before = found.st_size
    if before and os.pread(file, 1, before - 1) != b"\n":
        # A piece of a line that could not be taken back must not spoil the next one.
        lines = b"\n" + lines
    try:
        written = 0
        while written < len(lines):
            written += os.write(file, lines[written:])
        os.fsync(file)
    except BaseException:  # for whatever reason: who is told that it failed must be told the truth
        with suppress(OSError):
            os.ftruncate(file, before)
        raise


def _content(file: int) -> bytes:
    size = os.fstat(file).st_size
    content = b""
    while len(content) < size:
        piece = os.pread(file, size - len(content), len(content))
        if not piece:
            break
        content += piece
    return content


def _line(ending: Ending) -> bytes:
    return msgspec.json.encode(ending) + b"\n"


def _read(line: bytes) -> Ending | None:
    """Return what a line says, None where it is no ending that the store could hold."""
    try:
        ending = _LINE.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    numbers = [ending.account_id, ending.key_id]
    if isinstance(ending, Settle):
        numbers += ending.prompt_tokens, ending.completion_tokens
        if not abs(ending.charge) < _LARGEST_PRODUCT:
            return None
    return ending if all(-_LARGEST <= number < _LARGEST for number in numbers) else None

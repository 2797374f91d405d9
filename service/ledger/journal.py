"""Settlements that wait for the store, in a local file that outlives the process.

    the store is away      -> append to the file and flush -> the call completes
    the store is back      -> replay, oldest first -> forget
    the disk fails too     -> keep in memory until one of them is back: `Unwritten`
    other store, odd line  -> move to a `.rejected` file -> forget

Each process has its own file in the directory, locked while the process lives. The next process
that starts with the directory replays the files of ended processes. Replaying twice is harmless,
because a hold is settled once. An incomplete last line was never acknowledged, so it is skipped.

Rejected settlements are in a file whose name ends with `.rejected`. If an operator renames it to
`.journal`, the next process that starts with the directory replays it.
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
"""The operations that the journal keeps."""

MOST_UNWRITTEN: Final = 10_000
"""Maximum endings in memory: some megabytes, the calls of some minutes."""

_SUFFIX: Final = ".journal"
_SET_ASIDE: Final = ".rejected"
_LINE: Final = msgspec.json.Decoder(Ending)
_LARGEST: Final = 2**63
"""An integer below this fits the store."""
_LARGEST_PRODUCT: Final = 2**127
"""A price is the product of two such integers. The store charges at most the hold."""

_log = logging.getLogger(__name__)


class JournalError(OSError):
    """The directory cannot be written. The text names it."""


class Unwritten:
    """Endings in memory, until the store or the journal saves them.

    Use it only on the event loop. Nothing here waits for the disk.

    Args:
        lost: Called with the number of endings that are lost: too many, or at the end of the
            process.
    """

    def __init__(self, lost: Callable[[int], None]) -> None:
        self._lost = lost
        self._endings: dict[str, Ending] = {}
        self._most = MOST_UNWRITTEN

    def __len__(self) -> int:
        return len(self._endings)

    def add(self, ending: Ending) -> None:
        """Keep an ending. If there are too many, the oldest is lost."""
        self._endings[ending.hold_id] = ending
        while len(self._endings) > self._most:
            self._lose(next(iter(self._endings.values())))

    def endings(self) -> list[Ending]:
        """Return the kept endings, oldest first."""
        return list(self._endings.values())

    def forget(self, endings: Sequence[Ending]) -> None:
        """Remove endings that the store or the journal has saved."""
        for ending in endings:
            if self._endings.get(ending.hold_id) is ending:
                del self._endings[ending.hold_id]

    def close(self) -> None:
        """Log the endings that are lost with the process. Later ones are lost immediately."""
        self._most = 0
        for ending in self.endings():
            self._lose(ending)

    def _lose(self, ending: Ending) -> None:
        del self._endings[ending.hold_id]
        self._lost(1)
        # The line has all values for a charge by hand. The hold remains until its lease expires.
        _log.error("a settlement is lost", extra=log.fields(**msgspec.to_builtins(ending)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The contents of the journal at one point in time."""

    endings: Sequence[Ending]
    """The endings, oldest first; those of ended processes come before our own."""
    unreadable: Sequence[bytes]
    """Complete lines that are not endings."""
    size: int
    """The size of these contents in our own file, in bytes."""


class Journal:
    """The journal of one process. Its methods block. Call them from any thread.

    Args:
        directory: The directory of the files. Created if it does not exist.
        lost: Called with the number of endings that are lost from memory.

    Raises:
        JournalError: The directory cannot be created or written.
    """

    def __init__(self, directory: str, *, lost: Callable[[int], None] = lambda _: None) -> None:
        self.unwritten = Unwritten(lost)
        """The endings that could not be appended and are not in the store."""
        self._directory = Path(directory)
        self._path = self._directory / f"{uuid4().hex}{_SUFFIX}"
        self._orphans: dict[int, Path] = {}
        self._set_aside: set[bytes] = set()
        self._file = -1
        self._lock = Lock()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Another process must not find the new file before it is locked.
            place = os.open(self._directory, os.O_RDONLY)
            try:
                fcntl.flock(place, fcntl.LOCK_EX)
                self._take_orphans()
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
                self._file = os.open(self._path, flags, mode=0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX)
                # The name must also survive a power loss.
                os.fsync(place)
            finally:
                os.close(place)
        except OSError as error:
            self._close_all()
            raise JournalError(f"{directory}: {error.strerror}") from error

    def _take_orphans(self) -> None:
        """Lock the files of ended processes."""
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # its process just closed it, empty
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)  # of a running process
                continue
            self._orphans[file] = path

    def append(self, *endings: Ending) -> None:
        """Append endings. They are on disk when this returns.

        Raises:
            OSError: They cannot be written. None of them is kept.
        """
        lines = b"".join(map(_line, endings))
        with self._lock:
            _append(self._file, lines)

    def append_each(self, endings: Sequence[Ending]) -> Mapping[Ending, Exception]:
        """Append as many endings as possible, with one flush if all fit.

        Returns:
            The exception of each ending that was not appended.
        """
        try:
            self.append(*endings)
        except Exception as error:  # noqa: BLE001  (the appended endings stay appended)
            if len(endings) == 1:
                return {endings[0]: error}
            errors: dict[Ending, Exception] = {}
            for ending in endings:
                errors.update(self.append_each((ending,)))
            return errors
        return {}

    def kept(self) -> Kept:
        """Return the endings that wait for the store.

        Raises:
            OSError: The files cannot be read.
        """
        with self._lock:
            own = _content(self._file)
            files = [*map(_content, self._orphans), own]
        endings: list[Ending] = []
        unreadable: list[bytes] = []
        for content in files:
            # An incomplete line, or nothing, follows the last line break.
            for line in filter(None, content.split(b"\n")[:-1]):
                ending = _read(line)
                if ending is None:
                    unreadable.append(line)
                else:
                    endings.append(ending)
        return Kept(endings=endings, unreadable=unreadable, size=len(own))

    def size(self) -> int:
        """Return the size of the files in bytes, or 0 after `close`."""
        with suppress(OSError):  # it closes in another thread
            return sum(os.fstat(file).st_size for file in (*self._orphans, self._file))
        return 0

    def is_empty(self) -> bool:
        """Whether the files are empty."""
        with self._lock:
            return not self._orphans and os.fstat(self._file).st_size == 0

    def set_aside(self, endings: Sequence[Ending], unreadable: Sequence[bytes]) -> int:
        """Write settlements that the store cannot apply to the `.rejected` file.

        Returns:
            The number of settlements that were not in it before.

        Raises:
            OSError: They cannot be written.
        """
        lines = dict.fromkeys((*map(_line, endings), *(line + b"\n" for line in unreadable)))
        with self._lock:
            # The same lines come again if `forget` failed.
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
        """Remove contents that are in the store, unless endings were appended after reading them.

        Returns:
            Whether they were removed. If not, they are replayed again, which is harmless.

        Raises:
            OSError: The disk fails.
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
        """Close the file, and remove it if it is empty. Endings in memory are lost."""
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


def waiting(directory: str) -> list[Ending]:
    """Return the endings in a directory, also those of running processes. Change nothing.

    Raises:
        OSError: A file cannot be read.
    """
    endings: list[Ending] = []
    for path in sorted(Path(directory).glob(f"*{_SUFFIX}")):
        with suppress(FileNotFoundError):  # its process just closed it, empty
            lines = path.read_bytes().split(b"\n")[:-1]
            endings += (ending for ending in map(_read, lines) if ending is not None)
    return endings


def _append(file: int, lines: bytes) -> None:
    """Append complete lines to a file. They are on disk when this returns."""
    found = os.fstat(file)
    if not found.st_nlink:
        # A deleted file disappears with the process.
        raise FileNotFoundError(errno.ENOENT, "the journal's file was deleted")
    before = found.st_size
    if before and os.pread(file, 1, before - 1) != b"\n":
        # An incomplete line that could not be removed must not damage the next one.
        lines = b"\n" + lines
    try:
        written = 0
        while written < len(lines):
            written += os.write(file, lines[written:])
        os.fsync(file)
    except BaseException:  # of any kind: a failed append must leave no line behind
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
    """Return the ending in a line, or None if it is not one that the store can hold."""
    try:
        ending = _LINE.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    numbers = [ending.account_id, ending.key_id]
    if isinstance(ending, Settle):
        numbers += ending.prompt_tokens, ending.completion_tokens
        if ending.place is not None:
            numbers += ending.place.amount, ending.place.tokens
            if ending.place.amount < 0:
                return None
        if not abs(ending.charge) < _LARGEST_PRODUCT:
            return None
    return ending if all(-_LARGEST <= number < _LARGEST for number in numbers) else None

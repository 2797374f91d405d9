"""The messages of one run in memory, for any number of readers at their own pace.

    append -> entries -> take   (a reader, from any place)
    append waits              while the log is full and no reader has read its first entries
    a reader who is too slow  fails, if the log is full and a faster one is ahead

Up to its maximum, a log has every entry: readers who come later begin at the first one, and the
answer can be stored. Beyond it, the log is a window of the last entries. The fastest reader sets
the pace then, so that a slow one delays nobody and the memory stays bounded.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Final

from service import errors

MOST_IN_MEMORY: Final = 256 * 1024 * 1024
"""Maximum bytes of all logs of a process. Beyond it, logs are windows that cannot grow."""

_TOO_SLOW: Final = (
    "The answer is too large to be kept, and this request has read it too slowly. Send it again "
    "with a new key."
)


class Memory:
    """The size of all logs of a process.

    Args:
        most: The maximum, in bytes.
    """

    def __init__(self, most: int = MOST_IN_MEMORY) -> None:
        self._most = most
        self.used = 0

    def has(self, size: int) -> bool:
        """Whether so many more bytes fit."""
        return self.used + size <= self._most


class LogReader:
    """A place in a log that moves on.

    Args:
        log: The log.
        position: The number of entries before the place.
    """

    def __init__(self, log: "AnswerLog", position: int) -> None:
        self._log = log
        self.position = position

    async def take(self) -> Sequence[bytes]:
        """Return all entries that are there, at least one; none at the end.

        Raises:
            Failure: The run failed after these entries, or this reader is too slow.
        """
        return await self._log.take(self)


class AnswerLog:
    """The messages of one run.

    Args:
        most: Maximum size in bytes.
        memory: The memory of all logs.
    """

    def __init__(self, most: int, memory: Memory) -> None:
        self._most = most
        self._memory = memory
        self._entries: list[bytes] = []
        self._first = 0
        """The number of entries that were dropped."""
        self._size = 0
        self._readers: set[LogReader] = set()
        self._is_ended = False
        self._failure: errors.Failure | None = None
        self._changed = asyncio.Event()
        self.is_whole = True
        """Whether no entry was or will be dropped."""

    @property
    def entries(self) -> Sequence[bytes]:
        """The entries; all of them if the log is whole."""
        return self._entries

    async def append(self, entry: bytes) -> None:
        """Append an entry. Wait while the log is full."""
        while self._entries and not self._fits(len(entry)):
            self.is_whole = False
            if not self._drop():
                await self._change()
        self._entries.append(entry)
        self._resize(len(entry))
        self._tell()

    def end(self, failure: errors.Failure | None) -> None:
        """End the log, with the failure of the run or without one."""
        self._is_ended, self._failure = True, failure
        self._tell()

    def clear(self) -> None:
        """Release the memory of a log that nobody reads any more."""
        self._first += len(self._entries)
        self._entries.clear()
        self._resize(-self._size)

    @contextmanager
    def reading(self, position: int) -> Iterator[LogReader]:
        """Yield a reader.

        Args:
            position: The number of entries to skip.
        """
        reader = LogReader(self, position)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            self._tell()

    async def take(self, reader: LogReader) -> Sequence[bytes]:
        """Return the next entries for a reader, as `LogReader.take`."""
        while True:
            if reader.position < self._first:
                raise errors.AnswerNotKept(_TOO_SLOW)
            entries = self._entries[reader.position - self._first :]
            if entries:
                reader.position += len(entries)
                self._tell()
                return entries
            if self._is_ended:
                if self._failure is not None:
                    raise copy(self._failure)
                return ()
            await self._change()

    def _fits(self, size: int) -> bool:
        return self._size + size <= self._most and self._memory.has(size)

    def _drop(self) -> bool:
        """Drop the first entry, if a reader has read it."""
        if not any(reader.position > self._first for reader in self._readers):
            return False
        self._resize(-len(self._entries.pop(0)))
        self._first += 1
        return True

    def _resize(self, by: int) -> None:
        self._size += by
        self._memory.used += by

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()

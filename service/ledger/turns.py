"""The turns in which processes write one SQLite file.

    take the turn -> BEGIN IMMEDIATE … COMMIT -> give it back -> the kernel wakes the next writer

A writer that finds the file locked sleeps, in SQLite, longer after each attempt: the newest writer
tries most often, and the oldest can wait for a second. A file lock makes writers wait in the kernel
instead, which wakes them.

A turn makes writers take turns; SQLite's own lock protects the file. Therefore each wait for a turn
is short: if a process is stopped or the file cannot be locked, the transaction begins without one.
"""

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock, Thread


class Turns:
    """The turns of one process. One thread at a time has a turn or waits for it.

    Args:
        path: The file to lock. It is created if it does not exist.
        patience: How long to wait for the other threads, and then for the other processes, in
            seconds.
    """

    def __init__(self, path: str, *, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._ours = Lock()
        """Of the thread that has the turn or waits for it."""
        self._file = -1
        self._waits: SimpleQueue[Future[None] | None] | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take the turn for the block, or run the block without it after `patience`."""
        has_turn = self._take()
        try:
            yield
        finally:
            if has_turn:
                self._give_back()

    def close(self) -> None:
        """Close the file, unless a thread waits for its turn. A later turn opens it again."""
        if not self._ours.acquire(timeout=self._patience):
            return
        if self._waits is not None:
            self._waits.put(None)
            self._waits = None
        if self._file != -1:
            os.close(self._file)
            self._file = -1
        self._ours.release()

    def _take(self) -> bool:
        if not self._ours.acquire(timeout=self._patience):
            return False
        try:
            if self._file == -1:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._wait()
        except OSError:
            self._ours.release()
            return False
        return True

    def _wait(self) -> bool:
        """Wait for the turn in another thread: nothing ends a wait for a file lock."""
        if self._waits is None:
            self._waits = SimpleQueue()
            Thread(target=self._serve, args=(self._waits,), name="turns", daemon=True).start()
        coming: Future[None] = Future()
        self._waits.put(coming)
        try:
            coming.result(timeout=self._patience)
        except TimeoutError:
            # If it does not come now, the other thread gives it back when it comes.
            return not coming.cancel()
        return True

    def _serve(self, waits: "SimpleQueue[Future[None] | None]") -> None:
        while (coming := waits.get()) is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if coming.set_running_or_notify_cancel():
                coming.set_result(None)
            else:
                self._give_back()

    def _give_back(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._ours.release()

"""Whose turn it is to write a SQLite file, of all processes on it.

    take the turn -> BEGIN IMMEDIATE … COMMIT -> give it back -> the kernel wakes who waits

SQLite lets a writer that finds the file locked sleep, longer each time, so that who came last looks
most often and who came first can wait for a second. Those who wait for a file lock sleep in the
kernel instead, and are woken.

A turn protects nothing: SQLite's own lock does. So nobody waits for it for long. A process that is
stopped, or a file that cannot be locked, costs a short wait or none, and the transaction begins
without a turn.
"""

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock, Thread


class Turns:
    """The turns of one process, in which one thread at a time has one or waits for one.

    Args:
        path: The file that is locked; made if it is not there.
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
        """Take the turn for the block, if it comes in time."""
        has_turn = self._take()
        try:
            yield
        finally:
            if has_turn:
                self._give_back()

    def close(self) -> None:
        """Close the file, unless a thread waits for its turn; a later turn opens it again."""
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
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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

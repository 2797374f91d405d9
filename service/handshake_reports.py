"""Logs the failed TLS handshakes of gRPC's listeners.

    gRPC's core -> `stderr` of the C library -> pipe -> event loop -> `tls handshake failed`, why
                                                                   -> lines of others: descriptor 2

gRPC has no function that reports a failed handshake: its core only writes a line, through the C
library's `stderr`. That stream becomes a pipe. Python, and the C library if it aborts, write to
descriptor 2 itself, which stays as it is. The core's other lines are dropped, except for a fatal
one. If the pipe is full, lines are lost; nobody waits.

The core reads its level when grpc is imported, so `prepare` must be called before.
"""

import asyncio
import ctypes
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Final

from process import log
from process.tls.failures import in_words
from process.tls.plaintext import Listener

MOST_LINES: Final = 20
"""Maximum log lines per second; the next line has the number of those that were left out."""

_LEVEL, _SILENT = log.SILENT_GRPC
_TELLS: Final = "INFO"
"""The level at which the core reports failed handshakes, and hardly anything else."""

_LARGEST_READ: Final = 64 * 1024
_UNBUFFERED: Final = 2
_CORE: Final = re.compile(rb"([IWEF])[0-9]{4} [0-9:.]+ +[0-9]+ [^ ]+:[0-9]+\] (.*)", re.DOTALL)
_FAILED: Final = re.compile(
    rb"Handshake failed with error .*:([A-Z][A-Z0-9_]+): (.*)$", re.DOTALL | re.MULTILINE
)


def prepare(environment: MutableMapping[str, str], listeners: Iterable[Listener]) -> bool:
    """Have gRPC's core report failed handshakes, if `reported` can read what it writes.

    Args:
        environment: The environment of this process. If it sets the core's level, nothing changes.
        listeners: The listeners of gRPC.

    Returns:
        Whether to use `reported`.
    """
    level = environment.get(_LEVEL, _SILENT)
    have_tls = any(listener.has_tls for listener in listeners)
    if not have_tls or level != _SILENT or "grpc" in sys.modules or _stderr() is None:
        return False
    environment[_LEVEL] = _TELLS
    return True


@contextmanager
def reported(is_prepared: bool) -> Iterator[None]:
    """Log failed handshakes within the block.

    Args:
        is_prepared: What `prepare` returned.
    """
    stream = _stderr() if is_prepared else None
    if stream is None:
        yield
        return
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    lines = Lines(Report(time.monotonic))
    before = stream.value
    stream.value = _opened(writing)

    def read() -> None:
        with suppress(BlockingIOError):
            lines.take(os.read(reading, _LARGEST_READ))

    loop.add_reader(reading, read)
    try:
        yield
    finally:
        # Threads of the core can still write: the pipe stays open for them.
        stream.value = before
        loop.remove_reader(reading)


class Report:
    """Logs failed handshakes, up to `MOST_LINES` per second.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._unlogged = 0

    def failed(self, why: str) -> None:
        """Log a failed handshake and why it failed."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= MOST_LINES:
            self._unlogged += 1
            return
        self._lines += 1
        more = {"unlogged": self._unlogged} if self._unlogged else {}
        self._unlogged = 0
        log.event("service", "tls handshake failed", why=why, **more)


class Lines:
    """Divides what arrives at the pipe into lines.

    Args:
        report: Where failed handshakes go.
        others: Takes the lines that are not of gRPC's core, and its fatal ones.
    """

    def __init__(self, report: Report, others: Callable[[bytes], object] | None = None) -> None:
        self._report = report
        self._others = others or _to_descriptor
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Take the bytes of a read."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LARGEST_READ:]
        for each in lines:
            core = _CORE.fullmatch(each)
            if core is None or core[1] == b"F":
                self._others(each + b"\n")
            elif (why := cause(core[2])) is not None:
                self._report.failed(why)


def cause(line: bytes) -> str | None:
    """Return why a handshake failed, or None if a line of the core reports something else."""
    failed = _FAILED.match(line)
    return (
        None if failed is None else in_words(failed[1].decode(), failed[2].decode(errors="replace"))
    )


def _to_descriptor(line: bytes) -> None:
    with suppress(OSError):
        os.write(2, line)


def _stderr() -> ctypes.c_void_p | None:
    """Return the C library's variable `stderr`, or None if it is not glibc's."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (only glibc has it)
        return ctypes.c_void_p.in_dll(library, "stderr")
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def _opened(descriptor: int) -> int:
    """Return an unbuffered stream of the C library that writes to a descriptor."""
    library = ctypes.CDLL(None)
    library.fdopen.argtypes = (ctypes.c_int, ctypes.c_char_p)
    library.fdopen.restype = ctypes.c_void_p
    library.setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t)
    stream: int = library.fdopen(descriptor, b"w")
    library.setvbuf(stream, None, _UNBUFFERED, 0)
    return stream

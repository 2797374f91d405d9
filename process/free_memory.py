"""Returns memory that the process has freed to the system.

    after the start, and every 10 s if unused memory grew by 8 MiB -> malloc_trim

glibc keeps freed memory for later allocations, also after a crowd of callers has left. Unused
memory is what is resident, less what malloc has handed out. It includes Python's own arenas, stacks
and the like, which change little.
"""

import asyncio
import ctypes
import os
from pathlib import Path
from typing import Final, NoReturn, Protocol

INTERVAL: Final = 10.0
"""Seconds between two looks at the memory."""

SPARE: Final = 8 * 1024 * 1024
"""Bytes by which unused memory can grow until it is returned."""

_COUNTS: Final = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)
"""The members of glibc's `struct mallinfo2`, in its order."""


class Heap(Protocol):
    """The memory of a process."""

    def unused(self) -> int:
        """Return the bytes that are resident but not handed out."""

    def trim(self) -> None:
        """Return freed memory to the system."""


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _COUNTS]


class Glibc:
    """The memory of this process, with glibc 2.33 or later on Linux.

    Raises:
        OSError, AttributeError: Another system or C library.
    """

    def __init__(self) -> None:
        self._resident = Path("/proc/self/statm")
        self._page = os.sysconf("SC_PAGESIZE")
        library = ctypes.CDLL(None)
        self._trim = library.malloc_trim
        self._mallinfo = library.mallinfo2
        self._mallinfo.restype = _Mallinfo
        self.unused()

    def unused(self) -> int:
        """Return the bytes of anonymous resident memory that malloc has not handed out."""
        _, resident, shared, *_ = map(int, self._resident.read_text().split())
        info = self._mallinfo()
        return (resident - shared) * self._page - int(info.uordblks) - int(info.hblkhd)

    def trim(self) -> None:
        """Return freed pages of every arena to the system. It takes some milliseconds."""
        self._trim(ctypes.c_size_t(0))


def look(heap: Heap, least: int) -> int:
    """Return freed memory to the system, if there is enough of it.

    Args:
        heap: The memory.
        least: The least unused memory since memory was last returned, in bytes.

    Returns:
        The next value of `least`.
    """
    unused = heap.unused()
    if unused < least + SPARE:
        return min(unused, least)
    heap.trim()
    return heap.unused()


async def keep_returning(interval: float = INTERVAL) -> NoReturn:
    """Return freed memory until cancelled. Do nothing on systems without glibc.

    Args:
        interval: Seconds between two looks at the memory.
    """
    try:
        heap = Glibc()
    except (OSError, AttributeError):
        await asyncio.Event().wait()
        raise AssertionError("nobody sets the event") from None
    heap.trim()  # the start has freed some megabytes
    least = heap.unused()
    while True:
        await asyncio.sleep(interval)
        # In a thread, because other calls can continue while glibc walks through its arenas.
        least = await asyncio.to_thread(look, heap, least)

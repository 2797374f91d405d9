import asyncio
import ctypes
import sys
from dataclasses import dataclass, field

import pytest

from process import free_memory
from process.free_memory import SPARE, Glibc, keep_returning, look

MIB = 1024 * 1024


@dataclass
class Fake:
    """A heap with some freed memory, and some that no trim returns."""

    freed: int = 0
    rest: int = 20 * MIB
    trims: list[int] = field(default_factory=list)

    def unused(self) -> int:
        return self.freed + self.rest

    def trim(self) -> None:
        self.trims.append(self.freed)
        self.freed = 0


def test_memory_is_returned_after_unused_memory_grew() -> None:
    heap = Fake()
    least = look(heap, heap.unused())
    heap.freed = SPARE - 1
    least = look(heap, least)
    assert heap.trims == []

    heap.freed = SPARE
    least = look(heap, least)

    assert heap.trims == [SPARE]
    assert least == heap.rest
    assert look(heap, least) == heap.rest
    assert heap.trims == [SPARE]


def test_what_cannot_be_returned_is_tried_once() -> None:
    heap = Fake()
    least = look(heap, heap.unused())
    heap.rest += 2 * SPARE
    for _ in range(3):
        least = look(heap, least)
    assert heap.trims == [0]


def test_growth_counts_from_the_least() -> None:
    heap = Fake(freed=SPARE)
    least = look(heap, heap.unused())
    heap.freed = MIB
    least = look(heap, least)
    heap.freed = SPARE + MIB
    look(heap, least)
    assert heap.trims == [SPARE + MIB]


async def test_what_the_start_freed_is_returned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Fake(freed=1)
    monkeypatch.setattr(free_memory, "Glibc", lambda: heap)
    returning = asyncio.create_task(keep_returning(3600))
    await asyncio.sleep(0)
    returning.cancel()
    assert heap.trims == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is the C library of Linux")
def test_glibc_returns_what_was_freed() -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = (ctypes.c_void_p,)
    heap = Glibc()
    heap.trim()
    before = heap.unused()
    blocks = [library.malloc(ctypes.c_size_t(64 * 1024)) for _ in range(512)]
    for block in blocks:
        ctypes.memset(block, 1, 64 * 1024)
    # The last block keeps glibc from returning the others on its own.
    for block in blocks[:-1]:
        library.free(block)
    grown = heap.unused() - before
    assert grown > 16 * MIB

    look(heap, before)

    assert heap.unused() - before < grown / 4
    library.free(blocks[-1])

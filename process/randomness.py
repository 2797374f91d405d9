"""Random bytes for ids, read from the operating system in blocks."""

import os
from typing import Final

_SIZE: Final = 16
_AT_A_TIME: Final = 256

_pool: Final[list[bytes]] = []


def sixteen() -> bytes:
    """Return 16 random bytes that no other thread and no forked process receives."""
    while True:
        try:
            return _pool.pop()  # atomic: each element goes to one thread
        except IndexError:
            block = os.urandom(_SIZE * _AT_A_TIME)
            _pool.extend(block[at : at + _SIZE] for at in range(0, len(block), _SIZE))


os.register_at_fork(after_in_child=_pool.clear)

"""What SIGINT does while a program starts.

    the program starts     SIGINT ends the process, as it ends a program without a handler
    it serves              `lifetime` handles SIGINT
    it runs a command      KeyboardInterrupt, which the command handles

Python raises KeyboardInterrupt wherever the program happens to be, by default. While it imports its
modules, nothing can handle that, and a traceback is printed. Programs therefore call `end_at_once`
before their other imports.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


def end_at_once() -> None:
    """Let SIGINT end this process, unless the process ignores or handles SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def raised() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt in the block, instead of ending this process."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

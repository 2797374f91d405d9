"""Runs a module as a program, which gets SIGINT at a given moment of its start.

    python -m tests.faults.interrupted 300 service --workers 2
    python -m tests.faults.interrupted 0 service               never; prints the number of moments

The moments are Python's audit events, such as an import, an open file or a bound socket, counted
from the program's first one after it has changed what SIGINT does.
"""

import os
import runpy
import signal
import sys


def main() -> None:
    """Run the module in `sys.argv`."""
    # A shell starts programs in the background with SIGINT ignored, also this run of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted, module = int(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    here = os.getpid()
    moments = 0

    def count(*_: object) -> None:
        nonlocal moments
        if moments or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            moments += 1
            if moments == wanted and os.getpid() == here:
                os.kill(here, signal.SIGINT)

    sys.addaudithook(count)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        if not wanted:
            sys.stderr.write(f"moments {moments}\n")


if __name__ == "__main__":
    main()

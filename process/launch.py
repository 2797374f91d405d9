"""Starts the program of a console script.

The wheel contains every program, and pip installs only the requirements of the extras that were
asked for. If a requirement of the program is missing, the error names the extra to install.
"""

import sys
from importlib import import_module
from pathlib import Path

from process.interrupts import end_at_once


def launch(module: str, function: str, *, extra: str) -> int:
    """Import a program, run it and return its exit status.

    Args:
        module: The module of the program.
        function: Its function, which returns the exit status.
        extra: The extra that has the program's requirements.
    """
    end_at_once()
    try:
        status: int = getattr(import_module(module), function)()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", module.partition(".")[0]}:
            raise
        needed = f"the package {missing!r} is missing. Run: pip install 'chatcompletion[{extra}]'"
        print(f"{Path(sys.argv[0]).name}: {needed}", file=sys.stderr)  # noqa: T201  (for the operator)
        return 1
    return status

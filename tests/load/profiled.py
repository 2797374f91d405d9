"""`python profiled.py FILE MODULE [ARGUMENT …]`: a module under cProfile, in every Python thread.

At each SIGUSR1 it writes the self time since its start, by file, to FILE. The time is CPU time.
That of functions in C is their caller's, except SQLite's, which is a file of its own.
"""

import cProfile
import gc
import json
import os
import runpy
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

SQLITE: Final = "sqlite3"

_profiles: list[cProfile.Profile] = []


def begin(*_: object) -> None:
    """Profile the current thread from now on; of a new thread, this is the first event."""
    sys.setprofile(None)
    profile = cProfile.Profile(time.thread_time)
    _profiles.append(profile)
    profile.enable()


def write(path: Path) -> None:
    """Write the self seconds by file, complete or not at all."""
    seconds: dict[str, float] = defaultdict(float)
    gc.disable()  # what a collection calls would be noted while the notes are read
    _profiles[0].disable()
    for profile in tuple(_profiles):
        # An entry is of a function; those in C have a text instead of a code object.
        for entry in profile.getstats():
            if isinstance(entry.code, str):
                continue
            seconds[entry.code.co_filename] += entry.inlinetime
            for called in entry.calls or ():
                if isinstance(called.code, str):
                    place = SQLITE if SQLITE in called.code else entry.code.co_filename
                    seconds[place] += called.inlinetime
    _profiles[0].enable()
    gc.enable()
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(seconds), encoding="utf-8")
    os.replace(beside, path)


def main() -> None:
    """Run the module."""
    file, module, *arguments = sys.argv[1:]
    path = Path(file).resolve()
    sys.argv = [module, *arguments]
    del sys.path[0]  # the folder of this file

    def answer(*_: Any) -> None:
        write(path)

    signal.signal(signal.SIGUSR1, answer)
    threading.setprofile(begin)
    begin()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

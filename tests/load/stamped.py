"""`python stamped.py FILE MODULE [ARGUMENT …]`: a module that notes when requests pass its steps.

At each SIGUSR1 it writes the times of the requests since the last one to FILE, as JSON: for each
unary request, one time in seconds for each of `STEPS`. One request at a time can be followed.
"""

import functools
import inspect
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

STEPS: Final = (
    # The module, the class and the method, and the steps at its call and at its end.
    ("restbridge.http.protocol", "BoundedProtocol", "data_received", "received", ""),
    ("service.admission", "Admission", "_place", "placing", "placed"),
    ("service.upstream.transport.connection", "Connection", "exchange", "asking", "asked"),
    ("service.settlement", "Settlement", "end", "charging", "charged"),
    ("restbridge.http.protocol", "BoundedProtocol", "on_response_complete", "", "responded"),
)
NAMES: Final = tuple(name for *_, begin, end in STEPS for name in (begin, end) if name)

_times: dict[str, float] = {}
_requests: list[list[float]] = []


def note(name: str) -> None:
    """Note the time of a step."""
    if name == NAMES[0]:
        _times.clear()
    if name:
        _times[name] = time.perf_counter()
    if name == NAMES[-1] and tuple(_times) == NAMES:
        _requests.append(list(_times.values()))


def stamped(function: Callable[..., Any], begin: str, end: str) -> Callable[..., Any]:
    """Return a function or coroutine function that notes its begin and its end."""

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        note(begin)
        result = function(*arguments, **options)
        note(end)
        return result

    @functools.wraps(function)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        note(begin)
        result = await function(*arguments, **options)
        note(end)
        return result

    return awaited if inspect.iscoroutinefunction(function) else called


def write(path: Path) -> None:
    """Write the times, complete or not at all."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(_requests), encoding="utf-8")
    os.replace(beside, path)
    _requests.clear()


def main() -> None:
    """Run the module."""
    file, module, *arguments = sys.argv[1:]
    path = Path(file).resolve()
    sys.argv = [module, *arguments]
    del sys.path[0]  # the folder of this file
    for place, owner, method, begin, end in STEPS:
        holder = getattr(import_module(place), owner)
        setattr(holder, method, stamped(getattr(holder, method), begin, end))

    def answer(*_: Any) -> None:
        write(path)

    signal.signal(signal.SIGUSR1, answer)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

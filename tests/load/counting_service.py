"""`python counting_service.py TREE`: a checkout's service that counts the functions it enters.

Each line of the standard input is answered with the entries since the last one, by file, as JSON.
`count_calls.py` runs it, with the packages of the checkout on the path.
"""

import json
import runpy
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

PACKAGES: Final = ("service", "restbridge", "process", "protos/chatcompletion")


def answer(tree: Path, entered: Counter[CodeType]) -> None:
    """Answer each line of the standard input."""
    roots = tuple(f"{tree / package}/" for package in PACKAGES)
    for _ in sys.stdin:
        now = entered.copy()
        entered.clear()
        files: Counter[str] = Counter()
        for code, count in now.items():
            if code.co_filename.startswith(roots):
                files[code.co_filename] += count
        print(json.dumps(files), flush=True)


def serve(tree: Path) -> None:
    """Run the service with every thread but the one that answers counting."""
    entered: Counter[CodeType] = Counter()
    threading.Thread(target=answer, args=(tree, entered), daemon=True).start()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            entered[frame.f_code] += 1

    sys.argv = ["service"]
    threading.setprofile(note)
    sys.setprofile(note)
    runpy.run_module("service", run_name="__main__")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

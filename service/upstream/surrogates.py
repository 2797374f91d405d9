r"""Finds half of a surrogate pair in a request, such as "\ud83d" without "\ude00".

JSON can write it, but it is no character: servers answer it with an error of their own, or drop
the connection. Pure.
"""

import json
import re
from typing import Any, Final

_ESCAPE: Final = re.compile(rb"\\u[dD]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def has_surrogates(body: bytes) -> bool:
    r"""Return whether a JSON text has a surrogate, which can be one of a pair."""
    # Most large bodies have no escapes at all, which one search for a byte shows.
    return b"\\" in body and _ESCAPE.search(body) is not None


def unpaired(body: bytes) -> str | None:
    """Return the path of the first string or name with half of a pair, or None if there is none.

    Args:
        body: A JSON object.
    """
    waiting: list[tuple[str, Any]] = [("", json.loads(body))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            if _SURROGATE.search(value):
                return path
        elif isinstance(value, list):
            waiting.extend((f"{path}[{i}]", value[i]) for i in range(len(value) - 1, -1, -1))
        elif isinstance(value, dict):
            if any(map(_SURROGATE.search, value)):
                return path
            waiting.extend(
                (f"{path}.{name}" if path else name, inner)
                for name, inner in reversed(value.items())
            )
    return None

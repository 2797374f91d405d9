r"""Finds half of a surrogate pair in a request, such as "\ud83d" without "\ude00".

JSON can write it, but it is no character: servers answer it with an error of their own, or drop
the connection. Pure.
"""

import json
import re
from typing import Any, Final

_BACKSLASH: Final = ord("\\")
_ESCAPE: Final = re.compile(rb"\\u[dD]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LONGEST_NAME: Final = 64
"""Maximum characters of each name in a path; the rest is cut."""

_Trail = tuple[Any, str | int] | None
"""The steps to a value: those to the value around it, and the last one. The path itself, with all
names, would take too much memory for each value."""


def has_surrogates(body: bytes) -> bool:
    r"""Return whether a JSON text has a surrogate, which can be one of a pair."""
    # Most large bodies have no escapes at all, which one search for a byte shows.
    return _BACKSLASH in body and _ESCAPE.search(body) is not None


def unpaired(body: bytes) -> str | None:
    """Return the path of the first string or name with half of a pair, or None if there is none.

    Args:
        body: A JSON object.
    """
    # Python reads no integer of more than some thousand digits.
    waiting: list[tuple[_Trail, Any]] = [(None, json.loads(body, parse_int=len))]
    while waiting:
        trail, value = waiting.pop()
        if isinstance(value, str):
            if _SURROGATE.search(value):
                return _path(trail)
        elif isinstance(value, list):
            waiting.extend(((trail, i), value[i]) for i in range(len(value) - 1, -1, -1))
        elif isinstance(value, dict):
            if any(map(_SURROGATE.search, value)):
                return _path(trail)
            waiting.extend(((trail, name), inner) for name, inner in reversed(value.items()))
    return None


def _path(trail: _Trail) -> str:
    steps = []
    while trail is not None:
        trail, step = trail
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:_LONGEST_NAME]}")
    return "".join(reversed(steps)).removeprefix(".")

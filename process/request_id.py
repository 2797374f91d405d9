"""The request id, which identifies a call in headers, metadata, logs and error objects."""

import re
from collections.abc import Callable
from typing import Final

from process.randomness import sixteen

HEADER: Final = "x-request-id"
"""The HTTP header and the metadata key."""

_SANE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def new() -> str:
    """Return a new request id: `req_` and 32 hexadecimal digits."""
    return f"req_{sixteen().hex()}"


def accept(candidate: str | None, make: Callable[[], str] = new) -> str:
    """Return the caller's id if it is valid, otherwise a new one.

    A valid id has 1 to 128 characters of `[A-Za-z0-9._-]`, so that it cannot forge a header or a
    log line.
    """
    if candidate is not None and _SANE.fullmatch(candidate):
        return candidate
    return make()

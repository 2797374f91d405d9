"""The request id: one name for a call in headers, metadata, logs and error objects."""

import re
from collections.abc import Callable
from typing import Final

from process.randomness import sixteen

HEADER: Final = "x-request-id"
"""The HTTP header and the metadata key."""

_SANE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def new() -> str:
    """Make a request id: `req_` and 32 hexadecimal digits."""
    return f"req_{sixteen().hex()}"


def accept(candidate: str | None, make: Callable[[], str] = new) -> str:
    """Return the caller's id where it is sane, otherwise a new one.

    Sane is 1 to 128 characters of `[A-Za-z0-9._-]`: nothing that could forge a header or a line.
    """
    if candidate is not None and _SANE.fullmatch(candidate):
        return candidate
    return make()

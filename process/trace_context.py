"""W3C Trace Context and Baggage, from a request to the requests that it causes.

    traceparent   one, well formed                      the trace, and the span of the caller
    tracestate    up to 512 characters, only with it    the vendors' part
    baggage       up to 4,096 characters                members of the application

A header that is malformed or too long is dropped, never an error. OTEL_PROPAGATORS selects which of
them are carried. Pure, and without the packages of OpenTelemetry.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeAlias

from process.settings import parser

Carried: TypeAlias = tuple[tuple[str, str], ...]
"""The headers to send with the requests that a request causes: pairs of name and value."""

NOTHING: Final[Carried] = ()

TRACE: Final = "tracecontext"
BAGGAGE: Final = "baggage"
PROPAGATORS: Final = (TRACE, BAGGAGE)
"""The propagators of OTEL_PROPAGATORS that are supported."""

NAMES: Final = ("traceparent", "tracestate", "baggage")
"""The headers."""

_LONGEST_STATE: Final = 512
"""Maximum characters of `tracestate`: what W3C requires a participant to propagate."""
_LONGEST_BAGGAGE: Final = 4096
"""Maximum characters of `baggage`: several servers limit all headers of a request to 8 KiB."""
_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_PRINTABLE: Final = re.compile(r"[ -~]+")


@parser(f"a list of {' and '.join(PROPAGATORS)} separated by commas, or none")
def propagators(text: str) -> frozenset[str]:
    """Parse OTEL_PROPAGATORS."""
    names = frozenset(name.strip() for name in text.split(","))
    if names == {"none"}:
        return frozenset()
    if not names <= set(PROPAGATORS):
        raise ValueError
    return names


def carried(received: Mapping[str, str], propagators: Collection[str] = PROPAGATORS) -> Carried:
    """Return the headers to carry on.

    Args:
        received: The headers of the request, by lower-case name.
        propagators: Which headers to carry.
    """
    found: list[tuple[str, str]] = []
    parent = received.get("traceparent")
    if parent is not None and TRACE in propagators and _PARENT.fullmatch(parent):
        found.append(("traceparent", parent))
        state = received.get("tracestate", "")
        if len(state) <= _LONGEST_STATE and _PRINTABLE.fullmatch(state):
            found.append(("tracestate", state))
    baggage = received.get("baggage")
    if (
        baggage is not None
        and BAGGAGE in propagators
        and len(baggage) <= _LONGEST_BAGGAGE
        and _PRINTABLE.fullmatch(baggage)
    ):
        found.append(("baggage", baggage))
    return tuple(found)


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers of this module among those of an HTTP request.

    Several headers of one name are one list. Two of `traceparent` are malformed.

    Args:
        headers: Pairs of lower-case name and value.
    """
    found: dict[str, str] = {}
    for key, value in headers:
        if key in _RAW:
            name, text = _RAW[key], value.decode("latin-1")
            found[name] = f"{found[name]},{text}" if name in found else text
    return found


_RAW: Final = {name.encode(): name for name in NAMES}


def trace_of(headers: Carried) -> str:
    """Return the id of the trace that headers carry, as 32 hexadecimal digits; "" for none."""
    if headers and headers[0][0] == "traceparent":
        return headers[0][1][3:35]
    return ""

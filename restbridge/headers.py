"""The allow-lists of headers that the bridge passes on; it drops all others.

request header        -> metadata         condition
authorization           authorization     one, printable ASCII, at most 4 KiB
x-api-key, api-key      same name         without its value, if there is no authorization
idempotency-key         idempotency-key   one, printable ASCII, at most 255; otherwise as an empty
                                          one, which the service rejects
last-event-id           (a field of the request of a stream)
x-request-id            x-request-id      the caller's id if it is valid, otherwise a new one
traceparent, tracestate same name         W3C Trace Context, well formed
baggage                 same name         W3C Baggage, at most 4 KiB

metadata              -> response header
x-ratelimit-* (six)     same name         printable ASCII, at most 256
openai-processing-ms    same name         same
idempotent-replayed     same name         same
retry-after(-ms)        same name         same
x-chat-upstream         same name         same
chatcompletion-charge-bin  x-charge       a Charge, as text
"""

import re
from collections.abc import Iterable
from typing import Final

from chatcompletion import charges
from process import request_id
from process.trace_context import Carried

RawHeaders = Iterable[tuple[bytes, bytes]]
"""Pairs of a lower-case header name and its value, as ASGI has them."""

Metadata = Iterable[tuple[str, str | bytes]]
"""Pairs of key and value of gRPC metadata."""

RATE_LIMIT: Final = tuple(
    f"x-ratelimit-{what}-{unit}"
    for what in ("limit", "remaining", "reset")
    for unit in ("requests", "tokens")
)
"""OpenAI's headers for the state of a key's limits."""

ANSWER: Final = frozenset(
    {
        *RATE_LIMIT,
        *("openai-processing-ms", "retry-after", "retry-after-ms", "x-chat-upstream"),
        "idempotent-replayed",
    }
)
"""The metadata of the service that become response headers."""

CHARGE: Final = b"x-charge"
"""The response header with the receipt of the call."""

EXPOSED: Final = (request_id.HEADER, "x-should-retry", CHARGE.decode(), *sorted(ANSWER))
"""The response headers that web pages can read."""

IDEMPOTENCY_KEY: Final = b"idempotency-key"
LAST_EVENT_ID: Final = b"last-event-id"
_LONGEST_IDEMPOTENCY_KEY: Final = 255
_LONGEST_EVENT_ID: Final = 256

_OTHER_KEYS: Final = frozenset({b"x-api-key", b"api-key"})
_LONGEST_KEY: Final = 4096
# grpcio rejects more than 8 KiB of metadata. No valid key is this long.
_LONGEST_ANSWER: Final = 256
_PRINTABLE: Final = re.compile(r"[ -~]+")


def single(headers: RawHeaders, name: bytes) -> bytes | None:
    """Return the value of a header that occurs exactly once, otherwise None."""
    values = [value for key, value in headers if key == name]
    return values[0] if len(values) == 1 else None


def metadata(
    headers: RawHeaders, exchange_id: str, carried: Carried = ()
) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call to the service for a request with these headers.

    Omit an authorization that cannot be a key; the service then rejects the call as without a key.

    Args:
        headers: The headers of the request.
        exchange_id: The id of the request.
        carried: The trace headers to send.
    """
    pairs = [(request_id.HEADER, exchange_id)]
    key = single(headers, b"authorization")
    if key is not None and len(key) <= _LONGEST_KEY:
        text = key.decode("latin-1")
        if _PRINTABLE.fullmatch(text):
            pairs.append(("authorization", text))
    elif other := next((name for name, _ in headers if name in _OTHER_KEYS), None):
        pairs.append((other.decode("ascii"), "-"))  # for the message of the error
    return (*pairs, *carried)


def idempotency(headers: RawHeaders) -> tuple[tuple[str, str], ...]:
    """Return the metadata with the idempotency key of a request; none if it has no key.

    Replace a key that metadata cannot carry, or that is sent twice, by an empty one: the service
    rejects it. Without it, the request could be paid twice.
    """
    values = [value for name, value in headers if name == IDEMPOTENCY_KEY]
    if not values:
        return ()
    text = values[0].decode("latin-1")
    is_one = len(values) == 1 and len(text) <= _LONGEST_IDEMPOTENCY_KEY
    return (("idempotency-key", text if is_one and _PRINTABLE.fullmatch(text) else ""),)


def last_event_id(headers: RawHeaders) -> str | None:
    """Return the id of the last event that the client received; None if it sends none."""
    values = [value for name, value in headers if name == LAST_EVENT_ID]
    if not values:
        return None
    return values[0][:_LONGEST_EVENT_ID].decode("latin-1") if len(values) == 1 else ""


def answer(*metadata: Metadata | None) -> list[tuple[bytes, bytes]]:
    """Return the response headers for the service's metadata; the last of a repeated key wins."""
    found: dict[bytes, bytes] = {}
    for key, value in (pair for pairs in metadata for pair in pairs or ()):
        if (
            key in ANSWER
            and isinstance(value, str)
            and len(value) <= _LONGEST_ANSWER
            and _PRINTABLE.fullmatch(value)
        ):
            found[key.encode("ascii")] = value.encode("ascii")
        elif key == charges.KEY:
            charge = charges.of(((key, value),))
            if charge is not None:
                found[CHARGE] = charges.text(charge).encode("ascii")
    return list(found.items())

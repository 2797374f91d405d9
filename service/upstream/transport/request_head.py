"""A request line and its headers, checked and written as bytes: pure.

    begin -> the request line, and headers that several requests share
    write -> a whole head: a beginning, and the other headers

Names are mostly the same in each request, so their checks are cached.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import httpx

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_CHUNKED: Final = b"chunked"
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


def begin(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """Return the request line and the first headers of a request.

    Raises:
        httpx.LocalProtocolError: They are malformed, or frame the body.
    """
    verb = method.encode("ascii", "replace")
    if not _TOKEN.fullmatch(verb) or not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError("The method or the URL is illegal.")
    fields = [_field(name) for name, _ in headers]
    if not _FRAMING.isdisjoint(key for key, _ in fields):
        raise httpx.LocalProtocolError("The headers of several requests frame a body.")
    lines = [b"%b%b\r\n" % (_field(name)[1], value) for name, value in headers]
    return b"%b %b HTTP/1.1\r\n" % (verb, target) + _checked(b"".join(lines), len(lines))


def write(begun: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> tuple[bytes, bool]:
    """Return the head of a request, and whether its body is sent as chunks.

    Args:
        begun: Its beginning.
        headers: The other headers.
        body: Its body.

    Raises:
        httpx.LocalProtocolError: The request would be malformed or ambiguous.
    """
    chunked = sized = False
    lines: list[bytes] = []
    for name, value in headers:
        key, start = _field(name)
        lines += (start, value, b"\r\n")
        if key == b"content-length":
            if value != b"%d" % len(body):
                raise httpx.LocalProtocolError("The body is not as long as its header says.")
            sized = True
        elif key == b"transfer-encoding":
            if value.lower() != _CHUNKED:
                raise httpx.LocalProtocolError("The transfer encoding is not supported.")
            chunked = True
    if chunked and sized:
        raise httpx.LocalProtocolError("The body has two lengths.")
    return begun + _checked(b"".join(lines), len(headers)) + b"\r\n", chunked


def _checked(head: bytes, ends: int) -> bytes:
    """Return the lines of headers, each with its end. More lines mean an injected header."""
    if head.count(b"\n") != ends or head.count(b"\r") != ends or 0 in head:
        raise httpx.LocalProtocolError("A header has an illegal value.")
    return head


@lru_cache(maxsize=128)
def _field(name: bytes) -> tuple[bytes, bytes]:
    """Return the lower-case name of a header, and the bytes before its value."""
    if not _TOKEN.fullmatch(name):
        raise httpx.LocalProtocolError("A header has an illegal name.")
    return name.lower(), name + b": "

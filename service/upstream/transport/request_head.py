"""A request line and its headers, checked and written as bytes: pure.

Names and request lines are mostly the same in each request, so their checks are cached.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import httpx

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_CHUNKED: Final = b"chunked"


def write(
    method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> tuple[bytes, bool]:
    """Return the head of a request, and whether its body is sent as chunks.

    Raises:
        httpx.LocalProtocolError: The request would be malformed or ambiguous.
    """
    chunked = sized = False
    lines = [_request_line(method, target)]
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
    lines.append(b"\r\n")
    head = b"".join(lines)
    # The request line, a line per header, and the empty line. More lines mean an injected header.
    ends = len(headers) + 2
    if head.count(b"\n") != ends or head.count(b"\r") != ends or 0 in head:
        raise httpx.LocalProtocolError("A header has an illegal value.")
    return head, chunked


@lru_cache(maxsize=128)
def _request_line(method: str, target: bytes) -> bytes:
    verb = method.encode("ascii", "replace")
    if not _TOKEN.fullmatch(verb) or not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError("The method or the URL is illegal.")
    return b"%b %b HTTP/1.1\r\n" % (verb, target)


@lru_cache(maxsize=128)
def _field(name: bytes) -> tuple[bytes, bytes]:
    """Return the lower-case name of a header, and the bytes before its value."""
    if not _TOKEN.fullmatch(name):
        raise httpx.LocalProtocolError("A header has an illegal name.")
    return name.lower(), name + b": "

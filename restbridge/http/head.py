"""Checks of a request's head while it arrives.

    Host                none or two (HTTP/1.1), or not a host           400
    Transfer-Encoding   anything except one `chunked`, or HTTP/1.0      400
    version             not 1.0 or 1.1                                  400
    bytes, headers      too many                                        431

If two servers interpreted one of the first three differently, a client could smuggle a request past
one of them. No I/O.
"""

import re
from typing import Final

from restbridge.error_responses import ErrorResponse, of_reason
from restbridge.http.limits import Limits

_OVERHEAD: Final = 4  # a colon, a space, CR and LF
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")
_VERSIONS: Final = frozenset({"1.0", "1.1"})


class BadHeadError(Exception):
    """The head violates a rule. `failure` is the response."""

    def __init__(self, failure: ErrorResponse) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Head:
    """Counts and checks the bytes and headers of a head, including those of trailers.

    Args:
        limits: The limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._size = 0
        self._count = 0
        self._hosts: list[bytes] = []
        self._codings: list[bytes] = []
        self._unfinished = 0

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the head has arrived."""
        return self._size > 0 or self._unfinished > 0

    def line(self, url: bytes) -> None:
        """Count a part of the request line."""
        self._grow(len(url))

    def header(self, name: bytes, value: bytes) -> None:
        """Count a header and check it."""
        self._count += 1
        if self._count > self._limits.headers:
            raise BadHeadError(of_reason("HEADERS_TOO_LARGE"))
        self._grow(len(name) + len(value) + _OVERHEAD)
        lowered = name.lower()
        if lowered == b"host":
            self._hosts.append(value)
        elif lowered == b"transfer-encoding":
            self._codings.append(value.strip().lower())

    def unfinished(self, size: int) -> None:
        """Count `size` bytes that arrived without completing the head.

        The parser reports only complete headers, so that a single header could otherwise grow
        without limit.
        """
        self._unfinished += size
        if self._unfinished > self._limits.head_bytes:
            raise BadHeadError(of_reason("HEADERS_TOO_LARGE"))

    def complete(self, version: str) -> None:
        """Check the complete head.

        Args:
            version: The HTTP version, such as "1.1".
        """
        hosts = len(self._hosts)
        wrong = (
            version not in _VERSIONS
            or hosts > 1
            or (hosts == 0 and version == "1.1")
            or not all(_HOST.fullmatch(host) for host in self._hosts)
            or (self._codings and (self._codings != [b"chunked"] or version == "1.0"))
        )
        if wrong:
            raise BadHeadError(of_reason("MALFORMED_HTTP"))

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.head_bytes:
            raise BadHeadError(of_reason("HEADERS_TOO_LARGE"))

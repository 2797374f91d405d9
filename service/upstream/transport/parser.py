"""Parses responses from bytes. Pure, without sockets and clocks.

    start -> feed, feed, … -> head_complete -> feed, … -> complete
                                            -> feed, … -> finish, if the connection ends the body

llhttp, the parser of httptools, checks the framing. This module adds limits, and handles interim
responses, HEAD, and bodies that end with the connection, which llhttp leaves to its user.
"""

from typing import Final

import httptools
import httpx

MOST_HEADERS: Final = 1000
LARGEST_HEAD: Final = 64 * 1024
"""Maximum bytes of a head, including the interim responses before it. Also the maximum bytes
without a byte of the body, which bounds chunk extensions and trailers."""

_TOO_LARGE: Final = "The response's head or trailer is too large."
_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_VERSIONS: Final = {"1.0": b"HTTP/1.0", "1.1": b"HTTP/1.1"}


class HeadTooLarge(httpx.RemoteProtocolError):
    """The head or the trailer of a response exceeds the limits."""


class ResponseParser:
    """Parses the responses of one connection, one after the other."""

    __slots__ = (
        "_bodiless",
        "_delimited",
        "_fault",
        "_head_bytes",
        "_header_count",
        "_parser",
        "_since_body",
        "begun",
        "buffered",
        "complete",
        "head_complete",
        "headers",
        "keep_alive",
        "pieces",
        "reason",
        "status",
        "surplus",
        "version",
    )

    def __init__(self) -> None:
        self._make_parser()
        self.start(bodiless=False)

    def _make_parser(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        # Accept unambiguous forms that some servers send: lines that end with LF alone, and spaces
        # after the size of a chunk. `lenient_headers`, which accepts folded headers, stays off,
        # because with it llhttp also ends a header at a bare CR.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def start(self, *, bodiless: bool) -> None:
        """Reset the parser for the next response.

        Args:
            bodiless: Whether the request was HEAD. The response then has no body, despite its head,
                and the connection cannot be used again.
        """
        self.status = 0
        self.reason = b""
        self.version = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = False
        """Whether a byte of the response arrived."""
        self.head_complete = False
        """Whether the head is complete: `status`, `reason`, `version` and `headers` are valid."""
        self.pieces: list[bytes] = []
        """The pieces of the body that were not taken."""
        self.buffered = 0
        """The number of bytes in `pieces`."""
        self.complete = False
        """Whether the response is complete. Its last pieces can still be in `pieces`."""
        self.keep_alive = False
        """Whether the connection can be used for another request. Valid when complete."""
        self.surplus = False
        """Whether bytes followed the response."""
        self._bodiless = bodiless
        self._delimited = False
        self._fault: httpx.RemoteProtocolError | None = None
        self._head_bytes = 0
        self._header_count = 0
        self._since_body = 0

    def feed(self, data: bytes) -> None:
        """Parse some bytes.

        Raises:
            httpx.RemoteProtocolError: They are not a response, or exceed the limits.
        """
        self._since_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise self._fault or httpx.RemoteProtocolError(str(error)) from None
            self.surplus = True
        if self._since_body > LARGEST_HEAD and not self.complete:
            raise HeadTooLarge(_TOO_LARGE)

    def finish(self) -> bool:
        """Handle the end of the connection, and return whether the response is complete."""
        if self.head_complete and not self._delimited:
            self.complete = True
        return self.complete

    def close(self) -> None:
        """Drop the parser of httptools, after which nothing can be fed.

        It has references to this object. Otherwise, only a garbage collection would free both, and
        the body that nobody took.
        """
        del self._parser

    def take(self) -> bytes:
        """Return the bytes of the body since the last call, or b"" if there are none."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        return data

    def _refuse(
        self, fault: str, kind: type[httpx.RemoteProtocolError] = httpx.RemoteProtocolError
    ) -> httpx.RemoteProtocolError:
        # httptools replaces exceptions of callbacks with its own.
        self._fault = kind(fault)
        return self._fault

    # ---- called by httptools ----

    def on_message_begin(self) -> None:
        """Start a response. After a complete one, it is unrequested."""
        self.begun = True
        if self.complete:
            self.surplus = True

    def on_status(self, reason: bytes) -> None:
        """Add a part of the reason phrase."""
        if not self.complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Count and drop a trailer."""
        if self.complete:
            return
        self._header_count += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._header_count > MOST_HEADERS:
            raise self._refuse("The response has too many headers.", HeadTooLarge)
        if self._head_bytes > LARGEST_HEAD:
            raise self._refuse(_TOO_LARGE, HeadTooLarge)
        if self.head_complete:
            return
        self.headers.append((name, value.strip(b" \t")))
        size = len(name)
        if size == len(_LENGTH) and name.lower() == _LENGTH:
            self._delimited = True
        elif size == len(_CODING) and name.lower() == _CODING:
            # llhttp treats every other value, even "chunked" with a tab after it, as a body that
            # ends with the connection, and would return the sizes of chunks as a part of it.
            if self._delimited or value.rstrip(b" ").lower() != b"chunked":
                raise self._refuse("The transfer encoding of the response is not supported.")
            self._delimited = True

    def on_headers_complete(self) -> None:
        """Check the head of the response, or of an interim response before it."""
        if self.complete:
            return
        parser = self._parser
        status = parser.get_status_code()
        version = _VERSIONS.get(parser.get_http_version())
        if version is None:
            raise self._refuse("The response has another version of HTTP.")
        if status < 100:
            raise self._refuse("The response has an illegal status.")
        if status < 200:
            # llhttp rejects all bytes after an (unrequested) 101.
            self.headers.clear()
            self.reason = b""
            self._delimited = False
            return
        self.status = status
        self.version = version
        self.head_complete = True
        if self._bodiless:
            self.complete = True

    def on_body(self, data: bytes) -> None:
        """Add a piece of the body."""
        if self.complete:
            self.surplus = True
            return
        self._since_body = 0
        self.pieces.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        """End the response, or an interim response."""
        if self.head_complete and not self.complete:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()

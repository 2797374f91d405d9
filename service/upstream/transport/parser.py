"""A response, parsed from bytes: pure, without sockets and clocks.

    start ─► feed, feed, … ─► head_complete ─► feed, … ─► complete
                                                 └─► finish, where the connection ends the body

llhttp, the parser of httptools, checks the framing. This file adds the bounds, and the framings
that llhttp leaves to its user: interim responses, HEAD, and bodies that end with the connection.
"""

from typing import Final

import httptools
import httpx

MOST_HEADERS: Final = 1000
LARGEST_HEAD: Final = 64 * 1024
"""Bytes of a head together with the interim responses before it. Also the most bytes without any
of the body among them: long chunk extensions and trailers do not accumulate."""

_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_VERSIONS: Final = {"1.0": b"HTTP/1.0", "1.1": b"HTTP/1.1"}


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
        # Forms that are not ambiguous and that sloppy servers send: lines that end with LF alone,
        # spaces after the size of a chunk. `lenient_headers` stays off, with its folded headers:
        # with it, llhttp also takes a bare CR for the end of a header.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def start(self, *, bodiless: bool) -> None:
        """Forget the last response and expect the next.

        Args:
            bodiless: Whether the request was HEAD: the response has no body, whatever its head
                announces, and the connection cannot be used again.
        """
        self.status = 0
        self.reason = b""
        self.version = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_complete = False
        """Whether `status`, `reason`, `version` and `headers` are those of the response."""
        self.pieces: list[bytes] = []
        """What has come of the body and was not taken."""
        self.buffered = 0
        """The bytes in `pieces`."""
        self.complete = False
        """Whether the response is whole; its last pieces may not be taken yet."""
        self.keep_alive = False
        """Whether the server takes another request; known once complete."""
        self.surplus = False
        """Whether something followed the response."""
        self._bodiless = bodiless
        self._delimited = False
        self._fault = ""
        self._head_bytes = 0
        self._header_count = 0
        self._since_body = 0

    def feed(self, data: bytes) -> None:
        """Parse some bytes.

        Raises:
            httpx.RemoteProtocolError: they are no response, or exceed the bounds.
        """
        self._since_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise httpx.RemoteProtocolError(self._fault or str(error)) from None
            self.surplus = True
        if self._since_body > LARGEST_HEAD and not self.complete:
            raise httpx.RemoteProtocolError("The response's head or trailer is too large.")

    def finish(self) -> bool:
        """Note the end of the connection and return whether the response is complete."""
        if self.head_complete and not self._delimited:
            self.complete = True
        return self.complete

    def take(self) -> bytes:
        """Return what has come of the body since the last time; b"" for nothing."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        return data

    def _refuse(self, fault: str) -> httpx.RemoteProtocolError:
        # httptools hides the exceptions of callbacks behind its own.
        self._fault = fault
        return httpx.RemoteProtocolError(fault)

    # ---- httptools calls ----

    def on_message_begin(self) -> None:
        """Begin a response: after one that is complete, it is one that nobody asked for."""
        if self.complete:
            self.surplus = True

    def on_status(self, reason: bytes) -> None:
        """Take a part of the reason phrase."""
        if not self.complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one of the trailer is counted and dropped."""
        if self.complete:
            return
        self._header_count += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._header_count > MOST_HEADERS:
            raise self._refuse("The response has too many headers.")
        if self._head_bytes > LARGEST_HEAD:
            raise self._refuse("The response's head or trailer is too large.")
        if self.head_complete:
            return
        self.headers.append((name, value.strip(b" \t")))
        size = len(name)
        if size == len(_LENGTH) and name.lower() == _LENGTH:
            self._delimited = True
        elif size == len(_CODING) and name.lower() == _CODING:
            # Whatever llhttp does not take for chunks, a tab after the word among it, would pass
            # for a body that ends with the connection, sizes of chunks and all.
            if self._delimited or value.rstrip(b" ").lower() != b"chunked":
                raise self._refuse("The transfer encoding of the response is not supported.")
            self._delimited = True

    def on_headers_complete(self) -> None:
        """Take the head of the response, or of an interim one before it."""
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
            # After 101, which nobody asked for, llhttp refuses all that follows.
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
        """Take a piece of the body."""
        if self.complete:
            self.surplus = True
            return
        self._since_body = 0
        self.pieces.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        """End the response, or an interim one."""
        if self.head_complete and not self.complete:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()

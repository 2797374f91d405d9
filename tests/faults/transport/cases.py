"""Responses, byte by byte: their outcomes with our transport and with httpx's own.

If the outcome with httpx's own transport differs, the case has both, with the reason.
"""

from dataclasses import dataclass
from typing import Final

import httpx

from service.upstream.transport.parser import LARGEST_HEAD, MOST_HEADERS

OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"transfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Whole:
    """A response that is accepted, and whether its connection is reused."""

    body: bytes = b""
    status: int = 200
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """A response that ends with an error: before its head, or after a part of its body."""

    error: type[httpx.TransportError] = httpx.RemoteProtocolError
    body: bytes | None = None


Outcome = Whole | Broken
NO_HEAD: Final = Broken()


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """The bytes of a server, whether it then closes the connection, and the outcome."""

    sent: bytes
    closes: bool = False
    method: str = "POST"
    ours: Outcome
    httpxs: Outcome | None = None
    """The outcome with httpx's own transport, if it differs."""
    because: str = ""


KEPT: Final = Whole(b"hi", kept=True)
CASES: Final[dict[str, Case]] = {
    # ---- framing
    "a length": Case(sent=OK + b"content-length: 2\r\n\r\nhi", ours=KEPT),
    "no body": Case(sent=OK + b"content-length: 0\r\n\r\n", ours=Whole(kept=True)),
    "chunks": Case(sent=CHUNKED + b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", ours=KEPT),
    "chunks with extensions": Case(
        sent=CHUNKED + b'1;a=b\r\nh\r\n01;c="d"\r\ni\r\n0;e\r\n\r\n', ours=KEPT
    ),
    "spaces after the size of a chunk": Case(sent=CHUNKED + b"2  \r\nhi\r\n0\r\n\r\n", ours=KEPT),
    "an extension that is empty": Case(
        sent=CHUNKED + b"2;\r\nhi\r\n0\r\n\r\n",
        ours=Broken(body=b""),
        httpxs=KEPT,
        because="llhttp wants a name after the semicolon",
    ),
    "a trailer": Case(sent=CHUNKED + b"2\r\nhi\r\n0\r\nx-a: b\r\nx-c: d\r\n\r\n", ours=KEPT),
    "upper case": Case(
        sent=OK + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ours=KEPT
    ),
    "until the connection ends": Case(sent=OK + b"\r\nhi", closes=True, ours=Whole(b"hi")),
    "until the connection ends, nothing": Case(sent=OK + b"\r\n", closes=True, ours=Whole()),
    "HTTP/1.0": Case(
        sent=b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", closes=True, ours=Whole(b"hi")
    ),
    "HTTP/1.0 that keeps": Case(
        sent=b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi",
        ours=KEPT,
        httpxs=Whole(b"hi"),
        because="h11 knows no persistent connections of HTTP/1.0; gateways have them",
    ),
    "the server closes": Case(
        sent=OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi", ours=Whole(b"hi")
    ),
    "the server closes, among other words": Case(
        sent=OK + b"connection: x, Close\r\ncontent-length: 2\r\n\r\nhi", ours=Whole(b"hi")
    ),
    "204": Case(sent=b"HTTP/1.1 204 No\r\n\r\n", ours=Whole(status=204, kept=True)),
    "304 with a length": Case(
        sent=b"HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n", ours=Whole(status=304, kept=True)
    ),
    "HEAD": Case(
        sent=OK + b"content-length: 5\r\n\r\n",
        method="HEAD",
        ours=Whole(),
        httpxs=Whole(kept=True),
        because="the parser cannot be told; nothing here sends HEAD",
    ),
    "an error with a body": Case(
        sent=b"HTTP/1.1 503 \r\ncontent-length: 2\r\n\r\nhi",
        ours=Whole(b"hi", status=503, kept=True),
    ),
    # ---- interim responses
    "100 before": Case(
        sent=b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 2\r\n\r\nhi", ours=KEPT
    ),
    "103 twice before": Case(
        sent=b"HTTP/1.1 103 Early\r\nlink: a\r\ncontent-length: 7\r\n\r\n" * 2
        + CHUNKED
        + b"2\r\nhi\r\n0\r\n\r\n",
        ours=KEPT,
    ),
    "100 and no more": Case(sent=b"HTTP/1.1 100 Continue\r\n\r\n", closes=True, ours=NO_HEAD),
    "101 that nobody asked for": Case(
        sent=b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhi", ours=NO_HEAD
    ),
    "an upgrade that is offered": Case(
        sent=OK + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nhi", ours=KEPT
    ),
    # ---- sloppy forms
    "no reason": Case(sent=b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi", ours=KEPT),
    "lines that end with LF": Case(sent=b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi", ours=KEPT),
    "a folded header": Case(
        sent=OK + b"a: b\r\n c\r\n\td\r\ncontent-length: 2\r\n\r\nhi",
        ours=NO_HEAD,
        httpxs=KEPT,
        because="obsolete; where llhttp takes it, a bare CR ends a header, too",
    ),
    "a header that begins folded": Case(
        sent=OK + b" a: b\r\ncontent-length: 2\r\n\r\nhi", ours=NO_HEAD
    ),
    "spaces around a value": Case(sent=OK + b"content-length: \t 2\t \r\n\r\nhi", ours=KEPT),
    "empty lines before": Case(
        sent=b"\r\n\r\n" + OK + b"content-length: 2\r\n\r\nhi",
        ours=KEPT,
        httpxs=NO_HEAD,
        because="RFC 9112, 2.2, asks servers alone to skip them; nothing is lost by it",
    ),
    "bytes beyond ASCII": Case(
        sent=b"HTTP/1.1 200 \xe9\r\nx: \xe9\r\ncontent-length: 2\r\n\r\nhi", ours=KEPT
    ),
    # ---- illegal heads
    "a relative of HTTP": Case(
        sent=b"ICE/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        ours=KEPT,
        httpxs=NO_HEAD,
        because="llhttp takes it for HTTP; nothing is lost by it",
    ),
    "no HTTP": Case(sent=b"SSH-2.0-OpenSSH\r\n", closes=True, ours=NO_HEAD),
    "another version": Case(
        sent=b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        ours=NO_HEAD,
        httpxs=KEPT,
        because="h11 takes every version for HTTP/1.1",
    ),
    "a version that is none": Case(sent=b"HTTP/1.x 200 OK\r\n\r\n", ours=NO_HEAD),
    "a short status": Case(sent=b"HTTP/1.1 20 OK\r\n\r\n", ours=NO_HEAD),
    "a long status": Case(sent=b"HTTP/1.1 2000 OK\r\n\r\n", ours=NO_HEAD),
    "a status below 100": Case(sent=b"HTTP/1.1 099 OK\r\n\r\n", ours=NO_HEAD),
    "a header without a colon": Case(sent=OK + b"nothing\r\n\r\n", ours=NO_HEAD),
    "a header without a name": Case(sent=OK + b": x\r\n\r\n", ours=NO_HEAD),
    "a space before the colon": Case(sent=OK + b"content-length : 2\r\n\r\nhi", ours=NO_HEAD),
    "NUL in a header": Case(sent=OK + b"a: b\0c\r\n\r\n", ours=NO_HEAD),
    "a control character in a header": Case(
        sent=OK + b"a: b\x01c\r\ncontent-length: 2\r\n\r\nhi",
        ours=NO_HEAD,
        httpxs=KEPT,
        because="RFC 9110, 5.5, calls it invalid; h11 bounds NUL and spaces alone",
    ),
    "CR that ends a header": Case(sent=OK + b"a: \rcontent-length: 2\r\n\r\nhi", ours=NO_HEAD),
    "CR that ends a head": Case(
        sent=OK + b"a: \r\r\n b\r\ncontent-length: 2\r\n\r\nhi", ours=NO_HEAD
    ),
    "CR in a header": Case(sent=OK + b"a: b\rc\r\n\r\n", ours=NO_HEAD),
    # ---- ambiguous or illegal framing
    "two lengths": Case(
        sent=OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi!", ours=NO_HEAD
    ),
    "two equal lengths": Case(
        sent=OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nhi",
        ours=NO_HEAD,
        httpxs=KEPT,
        because="RFC 9112, 6.3, allows both; llhttp takes no chance",
    ),
    "a length that is none": Case(sent=OK + b"content-length: x\r\n\r\n", ours=NO_HEAD),
    "a signed length": Case(sent=OK + b"content-length: +2\r\n\r\nhi", ours=NO_HEAD),
    "an endless length": Case(
        sent=OK + b"content-length: 99999999999999999999\r\n\r\n",
        closes=True,
        ours=NO_HEAD,
        httpxs=Broken(body=b""),
        because="Python has no largest number",
    ),
    "a length and chunks": Case(
        sent=OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ours=NO_HEAD,
        httpxs=KEPT,
        because="RFC 9112, 6.3: it ought to be handled as an error",
    ),
    "another coding": Case(sent=OK + b"transfer-encoding: gzip\r\n\r\nhi", ours=NO_HEAD),
    "a tab after the coding": Case(
        sent=OK + b"transfer-encoding: chunked\t\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ours=NO_HEAD,
        httpxs=KEPT,
        because="llhttp does not take it for chunks",
    ),
    "another coding before chunks": Case(
        sent=OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ours=NO_HEAD
    ),
    "another coding, folded, before chunks": Case(
        sent=OK + b"transfer-encoding: gzip,\r\n chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ours=NO_HEAD
    ),
    "chunks twice": Case(
        sent=OK + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n2\r\nhi\r\n0\r\n\r\n", ours=NO_HEAD
    ),
    "a size that is none": Case(sent=CHUNKED + b"x\r\nhi\r\n", ours=Broken(body=b"")),
    "a negative size": Case(sent=CHUNKED + b"-2\r\nhi\r\n", ours=Broken(body=b"")),
    "a size in C": Case(sent=CHUNKED + b"0x2\r\nhi\r\n", ours=Broken(body=b"")),
    "an endless size": Case(
        sent=CHUNKED + b"fffffffffffffffff\r\nhi\r\n",
        closes=True,
        ours=Broken(body=b""),
        httpxs=Broken(body=b"hi\r\n"),
        because="Python has no largest number",
    ),
    "an empty size": Case(sent=CHUNKED + b"\r\nhi\r\n", ours=Broken(body=b"")),
    "a chunk that goes on": Case(sent=CHUNKED + b"2\r\nhi!\r\n0\r\n\r\n", ours=Broken(body=b"hi")),
    "a chunk that is one byte short": Case(
        sent=CHUNKED + b"2\r\nh\r\n0\r\n\r\n",
        ours=Whole(b"h\r", kept=True),
        httpxs=Broken(body=b"h\r"),
        because="where llhttp takes LF alone for the end of a line, it does so after a chunk, too",
    ),
    "a bad size later": Case(sent=CHUNKED + b"2\r\nhi\r\nx\r\n", ours=Broken(body=b"hi")),
    "chunks with LF": Case(sent=CHUNKED + b"2\nhi\n0\n\n", closes=True, ours=Broken(body=b"")),
    # ---- ends too soon
    "nothing": Case(sent=b"", closes=True, ours=NO_HEAD),
    "half a head": Case(sent=OK + b"content-le", closes=True, ours=NO_HEAD),
    "a head without its end": Case(sent=OK + b"a: b\r\n", closes=True, ours=NO_HEAD),
    "a length and nothing": Case(
        sent=OK + b"content-length: 2\r\n\r\n", closes=True, ours=Broken(body=b"")
    ),
    "a length and less": Case(
        sent=OK + b"content-length: 3\r\n\r\nhi", closes=True, ours=Broken(body=b"hi")
    ),
    "chunks and no more": Case(sent=CHUNKED, closes=True, ours=Broken(body=b"")),
    "half a size": Case(sent=CHUNKED + b"2", closes=True, ours=Broken(body=b"")),
    "half a chunk": Case(sent=CHUNKED + b"3\r\nhi", closes=True, ours=Broken(body=b"hi")),
    "a chunk and no more": Case(
        sent=CHUNKED + b"2\r\nhi\r\n", closes=True, ours=Broken(body=b"hi")
    ),
    "chunks without their end": Case(
        sent=CHUNKED + b"2\r\nhi\r\n0\r\n", closes=True, ours=Broken(body=b"hi")
    ),
    "half a trailer": Case(
        sent=CHUNKED + b"2\r\nhi\r\n0\r\nx: y\r\n", closes=True, ours=Broken(body=b"hi")
    ),
    # ---- more than was asked for
    "garbage after": Case(
        sent=OK + b"content-length: 2\r\n\r\nhi and more",
        ours=Whole(b"hi"),
    ),
    "a second response": Case(
        sent=OK + b"content-length: 2\r\n\r\nhi" + OK + b"content-length: 3\r\n\r\nbad",
        ours=Whole(b"hi"),
    ),
    "garbage after chunks": Case(sent=CHUNKED + b"2\r\nhi\r\n0\r\n\r\nmore", ours=Whole(b"hi")),
    "a body for 204": Case(
        sent=b"HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\nhi", ours=Whole(status=204)
    ),
    # ---- sizes
    "the most headers": Case(
        sent=OK + b"a: b\r\n" * (MOST_HEADERS - 1) + b"content-length: 2\r\n\r\nhi", ours=KEPT
    ),
    "too many headers": Case(
        sent=OK + b"a: b\r\n" * MOST_HEADERS + b"content-length: 2\r\n\r\nhi",
        ours=NO_HEAD,
        httpxs=KEPT,
        because="httpx bounds the bytes alone",
    ),
    "a large head": Case(
        sent=OK + b"a: " + b"b" * (LARGEST_HEAD - 200) + b"\r\ncontent-length: 2\r\n\r\nhi",
        ours=KEPT,
    ),
    "too large a head": Case(
        sent=OK + b"a: " + b"b" * LARGEST_HEAD + b"\r\ncontent-length: 2\r\n\r\nhi",
        ours=NO_HEAD,
        httpxs=KEPT,
        because="httpx's bound is 100 KiB",
    ),
    "a head without end": Case(sent=OK + b"a: " + b"b" * 2 * LARGEST_HEAD, ours=NO_HEAD),
    "a reason without end": Case(sent=b"HTTP/1.1 200 " + b"x" * 2 * LARGEST_HEAD, ours=NO_HEAD),
    "an extension without end": Case(
        sent=CHUNKED + b"2;" + b"x" * 8 * LARGEST_HEAD, ours=Broken(body=b"")
    ),
    "a trailer without end": Case(
        sent=CHUNKED + b"2\r\nhi\r\n0\r\nx: " + b"x" * 8 * LARGEST_HEAD, ours=Broken(body=b"hi")
    ),
}

"""Parsing at every split; tests/faults/transport/test_responses.py has the table of responses."""

import gc
import random
import weakref
from typing import Final

import httpx
import pytest

from service.upstream.transport.parser import (
    LARGEST_HEAD,
    MOST_HEADERS,
    HeadTooLarge,
    ResponseParser,
)

OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"transfer-encoding: chunked\r\n\r\n"
RESPONSES: Final = {
    "length": OK + b"X-Y: z\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nt: u\r\n\r\n",
    "interim": b"HTTP/1.1 103 Hint\r\nlink: a\r\n\r\n" + OK + b"content-length: 5\r\n\r\nhello",
    "LF": b"HTTP/1.1 200 OK\ncontent-length: 5\n\nhello",
}


def parse(*pieces: bytes, bodiless: bool = False) -> tuple[ResponseParser, bytes]:
    """Return the parser after these pieces, and the body."""
    parser = ResponseParser()
    parser.start(bodiless=bodiless)
    body = b""
    for piece in pieces:
        parser.feed(piece)
        body += parser.take()
    return parser, body


@pytest.mark.parametrize("name", RESPONSES)
def test_it_does_not_matter_where_a_response_is_split(name: str) -> None:
    data = RESPONSES[name]
    whole, _ = parse(data)
    for at in range(len(data) + 1):
        parser, body = parse(data[:at], data[at:])
        assert (parser.status, parser.reason, parser.headers) == (200, b"OK", whole.headers)
        assert body == b"hello"
        assert parser.complete
        assert parser.keep_alive
        assert not parser.surplus
    parser, body = parse(*(data[at : at + 1] for at in range(len(data))))
    assert (parser.headers, body, parser.complete) == (whole.headers, b"hello", True)


def test_responses_follow_each_other() -> None:
    parser = ResponseParser()
    for data in [*RESPONSES.values()] * 2:
        parser.start(bodiless=False)
        parser.feed(data)
        assert (parser.status, parser.take(), parser.complete) == (200, b"hello", True)
        assert not parser.surplus


def test_a_response_is_complete_at_its_last_byte_and_not_before() -> None:
    for data in RESPONSES.values():
        parser, _ = parse(data[:-1])
        assert not parser.complete
        assert not parser.finish()


@pytest.mark.parametrize(
    ("data", "complete"),
    [
        (b"", False),
        (OK, False),
        (OK + b"\r\n", True),
        (OK + b"\r\nhel", True),
        (OK + b"content-length: 0\r\n\r\n", True),
        (OK + b"content-length: 5\r\n\r\nhell", False),
        (CHUNKED, False),
        (b"HTTP/1.1 103 Hint\r\ncontent-length: 5\r\n\r\n" + OK + b"\r\nhel", True),
    ],
)
def test_the_end_of_the_connection_ends_what_has_no_other_end(data: bytes, complete: bool) -> None:
    parser, _ = parse(data)
    assert parser.finish() is complete


def test_what_follows_is_surplus() -> None:
    for data in RESPONSES.values():
        for more in (b"x", data, b"HTTP"):
            parser, body = parse(data + more)
            assert (body, parser.complete, parser.surplus) == (b"hello", True, True)


def test_a_response_without_a_body_is_complete_with_its_head() -> None:
    parser, body = parse(OK + b"content-length: 5\r\n\r\n", bodiless=True)
    assert (parser.complete, parser.keep_alive, body) == (True, False, b"")
    parser, body = parse(OK + b"content-length: 5\r\n\r\nhello", bodiless=True)
    assert (parser.complete, parser.surplus, body) == (True, True, b"")


def test_pieces_wait_until_they_are_taken() -> None:
    parser = ResponseParser()
    parser.feed(CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n")
    assert parser.buffered == 5
    assert parser.take() == b"hello"
    assert (parser.buffered, parser.take()) == (0, b"")


ILLEGAL: Final = {
    "another version": b"HTTP/2.0 200 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "another protocol from here on": b"HTTP/1.1 101 Go\r\nupgrade: x\r\n\r\n",
    "a folded header": OK + b"a: b\r\n c\r\n",
    "a CR that ends a header": OK + b"a: \rb: c\r\n",
    "a space before the colon": OK + b"content-length : 5\r\n",
    "another coding": OK + b"transfer-encoding: gzip\r\n",
    "another coding before chunks": OK + b"transfer-encoding: gzip, chunked\r\n",
    "a tab after chunks": OK + b"transfer-encoding: chunked\t\r\n",
    "chunks twice": OK + b"transfer-encoding: chunked\r\n" * 2,
    "a length and chunks": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
    "a large head in one piece": OK + b"a: %b\r\n\r\nhello" % (b"b" * LARGEST_HEAD),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_is_illegal_or_ambiguous_is_refused(name: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        parse(ILLEGAL[name] + b"a: b\r\n\r\n")


def feed(parser: ResponseParser, pieces: list[bytes]) -> None:
    for piece in pieces:
        parser.feed(piece)


ENDLESS: Final = {
    "a header": (OK + b"a: ", b"b"),
    "headers": (OK, b"a: b\r\n"),
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a reason": (b"HTTP/1.1 200 ", b"x"),
    "the extension of a chunk": (CHUNKED + b"2;", b"x"),
    "a trailer": (CHUNKED + b"0\r\na: ", b"b"),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
    "empty lines": (b"", b"\r\n"),
}


@pytest.mark.parametrize("size", [1000, 200_000])
@pytest.mark.parametrize("name", ENDLESS)
def test_nothing_accumulates_without_end(name: str, size: int) -> None:
    parser = ResponseParser()
    begin, more = ENDLESS[name]
    parser.feed(begin)
    pieces = [more * (size // len(more))] * (2 + 2 * LARGEST_HEAD // size)
    with pytest.raises(httpx.RemoteProtocolError):
        feed(parser, pieces)


def test_the_most_headers_and_one_more() -> None:
    for count in (MOST_HEADERS, MOST_HEADERS + 1):
        parser = ResponseParser()
        data = OK + b"a: b\r\n" * count + b"\r\n"
        if count > MOST_HEADERS:
            with pytest.raises(HeadTooLarge, match="too many headers"):
                parser.feed(data)
        else:
            parser.feed(data)
            assert len(parser.headers) == count


def test_chunks_and_a_long_body_are_no_head() -> None:
    """Together, the frames exceed the maximum of a head, but they do not accumulate."""
    parser = ResponseParser()
    parser.feed(CHUNKED)
    for _ in range(LARGEST_HEAD):
        parser.feed(b"1\r\nx\r\n")
    parser.feed(b"0\r\n\r\n")
    assert parser.complete
    assert parser.take() == b"x" * LARGEST_HEAD


def test_noise_raises_one_error_or_none() -> None:
    source = random.Random(7)  # noqa: S311  (the same each time)
    for _ in range(3000):
        data = bytearray(source.choice([*RESPONSES.values()]))
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(data))
            data[at : at + source.randint(0, 2)] = source.randbytes(source.randint(0, 2))
        try:
            parser, _ = parse(bytes(data))
        except httpx.RemoteProtocolError:
            continue
        assert parser.complete or not parser.keep_alive


class Watched(ResponseParser):
    __slots__ = ("__weakref__",)


def test_a_closed_parser_is_freed_without_a_garbage_collection() -> None:
    gc.disable()
    try:
        parser = Watched()
        parser.feed(CHUNKED + b"2\r\nhe")
        parser.close()
        assert parser.take() == b"he"
        watched = weakref.ref(parser)
        del parser
        assert watched() is None
    finally:
        gc.enable()

"""Requests: their bytes, their framing, and when the rest is not sent."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest

from service.upstream.transport.connection import MOST_BUFFERED, SLICE
from tests.faults.transport.carriers import TIMEOUTS, Carrier, pieces
from tests.faults.transport.scripted_server import Peer, saying, serving
from tests.support.waiting import until

HI: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
LARGE: Final = bytes(range(256)) * 80_000
"""More than sockets buffer."""


# ------------------------------------------------------------------------------------------- bytes


async def test_a_request_is_sent_as_it_is(carrier: Carrier) -> None:
    headers = [("Host", "there"), ("X-A", "b"), ("x-a", "\xe9 c"), ("Content-Length", "2")]
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    async with serving(saying(HI)) as server, carrier.client() as client:
        url = f"{server.url}/v1/chat%20completions?a=b&c=\xe9#part"
        await client.ask(url, headers=raw, content=b"{}")
    assert server.requests == [
        b"POST /v1/chat%20completions?a=b&c=%C3%A9 HTTP/1.1\r\n"
        b"Host: there\r\nX-A: b\r\nx-a: \xe9 c\r\nContent-Length: 2\r\n\r\n{}"
    ]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PURGE"])
async def test_each_method_is_sent(carrier: Carrier, method: str) -> None:
    async with serving(saying(HI)) as server, carrier.client() as client:
        await client.ask(server.url, method, content=None)
    (request,) = server.requests
    assert request.startswith(method.encode() + b" / HTTP/1.1\r\n")


@pytest.mark.parametrize("size", [0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE, len(LARGE)])
async def test_a_body_of_any_size_is_sent_whole(carrier: Carrier, size: int) -> None:
    async with serving(saying(HI)) as server, carrier.client() as client:
        for _ in range(2):
            assert (await client.ask(server.url, content=LARGE[:size])).body == b"hi"
        assert len(server.peers) == 1
    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [LARGE[:size]] * 2


@pytest.mark.parametrize("parts", [(), (b"",), (b"a", b"", b"bc" * 100_000)])
async def test_a_body_without_a_length_is_sent_in_chunks(
    carrier: Carrier, parts: tuple[bytes, ...]
) -> None:
    received = bytearray()

    async def script(peer: Peer) -> None:
        assert b"transfer-encoding: chunked\r\n" in (await peer.head()).lower()
        while size := int(await peer.line(), 16):
            received.extend(await peer.exactly(size))
            assert await peer.line() == b"\r\n"
        assert await peer.line() == b"\r\n"
        await peer.send(HI)
        await peer.left()

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async with serving(script) as server, carrier.client() as client:
        assert (await client.ask(server.url, content=body())).body == b"hi"
    assert received == b"".join(parts)


ILLEGAL: Final[dict[str, dict[str, Any]]] = {
    "a value with CR and LF": {"headers": [(b"x", b"a\r\ny: b")]},
    "a value with LF": {"headers": [(b"x", b"a\ny: b")]},
    "a value with CR": {"headers": [(b"x", b"a\rb")]},
    "a value with NUL": {"headers": [(b"x", b"a\0b")]},
    "a name with a colon": {"headers": [(b"x:y", b"a")]},
    "a name with a space": {"headers": [(b"x ", b"a")]},
    "a name with CR and LF": {"headers": [(b"x\r\ny", b"a")]},
    "no name": {"headers": [(b"", b"a")]},
    "a length that is none": {"headers": [(b"content-length", b"x")], "content": b"{}"},
    "another coding": {"headers": [(b"transfer-encoding", b"gzip")], "content": b"{}"},
}


@pytest.mark.parametrize("name", ILLEGAL)
async def test_what_would_be_another_request_is_not_sent(carrier: Carrier, name: str) -> None:
    members = {"content": b"{}", **ILLEGAL[name]}
    async with serving(saying(HI)) as server, carrier.client(size=1) as client:
        with pytest.raises(httpx.LocalProtocolError):
            await client.ask(server.url, **members)
        assert (await client.ask(server.url)).body == b"hi"
        assert b"y:" not in b"".join(server.requests)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"1")],
        [(b"content-length", b"3")],
        [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")],
    ],
)
async def test_a_length_that_is_not_the_bodys_is_not_sent(
    ours: Carrier, headers: list[tuple[bytes, bytes]]
) -> None:
    """httpx's own transport sends a part, or the chunks without the length."""
    async with serving(saying(HI)) as server, ours.client() as client:
        with pytest.raises(httpx.LocalProtocolError):
            await client.ask(server.url, headers=headers, content=b"{}")
        assert server.peers == []


async def test_a_method_that_is_none_is_not_sent(carrier: Carrier) -> None:
    async with serving(saying(HI)) as server, carrier.client() as client:
        with pytest.raises(httpx.LocalProtocolError):
            await client.ask(server.url, "PO ST")


@pytest.mark.parametrize("url", ["ftp://localhost/", "localhost/", "/v1"])
async def test_a_url_that_is_not_of_http(carrier: Carrier, url: str) -> None:
    async with carrier.client() as client:
        with pytest.raises((httpx.UnsupportedProtocol, httpx.ConnectError)):
            await client.ask(url)


# ----------------------------------------------------------------- a server that does not read all


async def test_a_server_that_does_not_read_is_waited_for_in_time(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await over.wait()
        await peer.left()

    over = asyncio.Event()
    async with serving(script) as server, carrier.client() as client:
        with pytest.raises(httpx.WriteTimeout):
            await client.ask(server.url, content=LARGE, timeouts={"write": 0.1})
        over.set()


async def test_a_server_that_reads_slowly_gets_all(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        left = len(LARGE)
        while left:
            left -= len(await peer.exactly(min(left, 1_000_000)))
            await asyncio.sleep(0)
        await peer.send(HI)
        await peer.left()

    async with serving(script) as server, carrier.client() as client:
        assert (await client.ask(server.url, content=LARGE)).body == b"hi"


TOO_LARGE: Final = b"HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nno"


async def test_an_answer_before_the_body_was_read(carrier: Carrier) -> None:
    """Our transport reads the response immediately; httpx's only when the server has closed."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(TOO_LARGE)
        if carrier.name == "ours":
            await peer.left()

    async with serving(script) as server, carrier.client() as client:
        for number in range(3):
            try:
                received = await client.ask(server.url, content=LARGE)
            except httpx.ReadError:
                # The response was lost with the reset, which the unread body causes.
                assert carrier.name != "ours"
            else:
                assert (received.status, received.body) == (413, b"no")
            await until(lambda: server.open == 0)
            assert len(server.peers) == number + 1


async def test_an_answer_before_the_body_ends_the_body(ours: Carrier) -> None:
    """While a response continues, the rest of its request is not sent."""
    size = 0

    async def script(peer: Peer) -> None:
        nonlocal size
        await peer.head()
        await peer.send(TOO_LARGE[:-1])
        await read.wait()
        await peer.send(TOO_LARGE[-1:])
        size = len(await peer.rest())

    read = asyncio.Event()
    async with serving(script) as server, ours.client() as client:
        response = await client.open(server.url, content=LARGE)
        body = pieces(response)
        assert await anext(body) == b"n"
        (connection,) = client.transport._pool._connections  # type: ignore[attr-defined]
        assert connection._transport.get_write_buffer_size() <= SLICE
        read.set()
        assert await anext(body) == b"o"
        await response.aclose()
        await until(lambda: server.open == 0)
    assert size < len(LARGE)


async def test_a_connection_that_breaks_while_a_body_is_sent(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with serving(script) as server, carrier.client(size=1) as client:
        for _ in range(3):
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                await client.ask(server.url, content=LARGE)


# ------------------------------------------------------------------- a reader that does not read


async def test_a_body_that_nobody_reads_is_not_read_from_the_socket(ours: Carrier) -> None:
    answer = saying(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(LARGE), LARGE)
    async with serving(answer) as server, ours.client() as client:
        response = await client.open(server.url)
        (connection,) = client.transport._pool._connections  # type: ignore[attr-defined]
        await until(lambda: connection._paused)
        # The socket is read in pieces of up to 16 KiB.
        assert MOST_BUFFERED < connection.parser.buffered <= MOST_BUFFERED + 16 * 1024
        assert b"".join([piece async for piece in pieces(response)]) == LARGE
        await response.aclose()
        assert (await client.ask(server.url)).body == LARGE
        assert len(server.peers) == 1


async def test_clocks_can_be_absent(carrier: Carrier) -> None:
    async with serving(saying(HI)) as server, carrier.client() as client:
        none: Any = dict.fromkeys(TIMEOUTS)
        assert (await client.ask(server.url, timeouts=none, content=LARGE)).body == b"hi"

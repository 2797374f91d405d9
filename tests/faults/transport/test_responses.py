"""The outcomes of the responses in `cases`, and the arrival of responses.

Each case is sent at once and, with our transport, also byte by byte.
"""

import asyncio
from typing import Final

import httpx
import pytest

from service.upstream.transport.http11 import ResponseBody
from tests.faults.transport.carriers import HTTPXS, OURS, Carrier, Received, pieces
from tests.faults.transport.cases import CASES, CHUNKED, OK, Broken, Case, Outcome, Whole
from tests.faults.transport.scripted_server import Peer, serving


def test_each_difference_has_its_reason() -> None:
    for case in CASES.values():
        assert (case.httpxs is not None) == bool(case.because)
        assert case.httpxs != case.ours


WAYS: Final = {"ours": (OURS, False), "ours bytewise": (OURS, True), "httpx's": (HTTPXS, False)}
"""The transport, and whether each byte is sent alone."""


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name, case in CASES.items()
        for way, (_, bytewise) in WAYS.items()
        if not bytewise or len(case.sent) < 1000
    ],
)
async def test_a_response(name: str, way: str) -> None:
    case = CASES[name]
    carrier, bytewise = WAYS[way]
    expected = case.ours if carrier.name == "ours" or case.httpxs is None else case.httpxs
    sent = [case.sent[at : at + 1] for at in range(len(case.sent))] if bytewise else [case.sent]

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(*sent)
        if not case.closes:
            await peer.request()
            await peer.send(OK + b"content-length: 5\r\n\r\nagain")
            await peer.left()

    async with serving(script) as server, carrier.client() as client:
        outcome: Outcome
        body = None
        try:
            response = await client.open(server.url, case.method, content=None)
            read = []
            body = b""
            try:
                async for piece in pieces(response):
                    read.append(piece)
                    body = b"".join(read)
            finally:
                await response.aclose()
            outcome = Whole(body, response.status_code)
            if isinstance(expected, Whole) and expected.kept:
                assert (await client.ask(server.url, case.method, content=None)).body == (
                    b"" if case.method == "HEAD" else b"again"
                )
                outcome = Whole(body, response.status_code, kept=len(server.peers) == 1)
        except httpx.TransportError as error:
            kind = next(kind for kind in type(error).__mro__ if kind.__module__ == "httpx")
            outcome = Broken(kind, body)
        assert outcome == expected


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.ours == Whole(b"hi") and not case.closes]
)
async def test_a_connection_that_is_not_fit_is_not_used_again(ours: Carrier, case: Case) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(case.sent)
        await peer.left()

    async with serving(script) as server, ours.client() as client:
        for _ in range(2):
            assert (await client.ask(server.url)).body == b"hi"
        assert len(server.peers) == 2


async def test_status_and_headers_arrive_as_they_were_sent(carrier: Carrier) -> None:
    head = b"HTTP/1.1 418 I'm a teapot\r\nX-A:  b \r\nx-a: c\r\nEmpty:\r\nContent-Length: 0\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        await peer.left()

    async with serving(script) as server, carrier.client() as client:
        response = await client.open(server.url)
        await response.aclose()
    assert response.status_code == 418
    assert response.extensions["http_version"] == b"HTTP/1.1"
    assert response.extensions["reason_phrase"] == b"I'm a teapot"
    assert response.headers.raw == [
        (b"X-A", b"b"),
        (b"x-a", b"c"),
        (b"Empty", b""),
        (b"Content-Length", b"0"),
    ]


@pytest.mark.parametrize(
    "sent", [b"", OK, OK + b"\r\nhi", OK + b"content-length: 3\r\n\r\nhi", CHUNKED + b"2\r\nhi\r\n"]
)
async def test_a_reset_is_no_end(carrier: Carrier, sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        peer.reset()

    async with serving(script) as server, carrier.client() as client:
        with pytest.raises(httpx.ReadError):
            await client.ask(server.url)


async def test_a_body_arrives_as_it_comes(carrier: Carrier) -> None:
    steps = [asyncio.Event() for _ in range(3)]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        for step in steps:
            await step.wait()
            await peer.send(b"2\r\nhi\r\n")
        await peer.send(b"0\r\n\r\n")
        await peer.left()

    async with serving(script) as server, carrier.client() as client:
        response = await client.open(server.url)
        body = pieces(response)
        for step in steps:
            step.set()
            assert await anext(body) == b"hi"
        with pytest.raises(StopAsyncIteration):
            await anext(body)
        await response.aclose()


async def test_a_large_body_is_whole(carrier: Carrier) -> None:
    data = bytes(range(256)) * 40_000
    for sent in (
        OK + b"content-length: %d\r\n\r\n%b" % (len(data), data),
        CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data),
    ):

        async def script(peer: Peer, sent: bytes = sent) -> None:
            await peer.request()
            await peer.send(sent)
            await peer.left()

        async with serving(script) as server, carrier.client() as client:
            assert await client.ask(server.url) == Received(
                200, [(sent.split(b"\r\n")[1].partition(b": ")[::2])], data
            )


async def test_a_body_that_arrived_with_its_head_is_taken_at_once(ours: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-length: 5\r\n\r\nwhole")
        await peer.request()
        await peer.send(OK + b"content-length: 5\r\n\r\n", b"again")
        await peer.left()

    async with serving(script) as server, ours.client() as client:
        first = await client.open(server.url)
        assert isinstance(first.stream, ResponseBody)
        assert first.stream.take_whole() == b"whole"
        assert first.stream.take_whole() is None
        assert [piece async for piece in pieces(first)] == []
        await first.aclose()

        second = await client.open(server.url)  # on the same connection
        assert isinstance(second.stream, ResponseBody)
        assert b"".join([piece async for piece in pieces(second)]) == b"again"
        assert second.stream.take_whole() is None
        await second.aclose()

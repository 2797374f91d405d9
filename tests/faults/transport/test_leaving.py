"""Cancellations and timeouts: the work at the server ends, and nothing is left behind."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Final

import httpx
import pytest

from service.upstream.transport import connection
from service.upstream.transport.parser import ResponseParser
from tests.faults.transport.carriers import Carrier, Client, pieces
from tests.faults.transport.scripted_server import Peer, cancel, saying, serving, silent
from tests.support.waiting import until, wait

HI: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
CHUNKED: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_a_response_that_is_not_read_to_its_end_is_closed(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nhi\r\n")
        await peer.left()

    async with serving(script) as server, carrier.client(size=1) as client:
        for reads in (0, 1):
            response = await client.open(server.url)
            for _ in range(reads):
                assert await anext(pieces(response)) == b"hi"
            await response.aclose()
            await until(lambda: server.open == 0)


class Watched(ResponseParser):
    __slots__ = ("__weakref__",)


async def test_a_closed_connection_is_freed_without_a_garbage_collection(
    ours: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nhi\r\n")
        await peer.left()

    made: list[weakref.ref[Watched]] = []

    def make() -> Watched:
        parser = Watched()
        made.append(weakref.ref(parser))
        return parser

    monkeypatch.setattr(connection, "ResponseParser", make)
    gc.disable()
    try:
        async with serving(script) as server, ours.client(size=1) as client:
            response = await client.open(server.url)
            await response.aclose()
            del response
            await until(lambda: server.open == 0 and made[0]() is None)
            assert len(made) == 1
    finally:
        gc.enable()


async def test_a_complete_response_that_nobody_reads_keeps_its_connection(ours: Carrier) -> None:
    async with serving(saying(HI)) as server, ours.client() as client:
        for _ in range(3):
            response = await client.open(server.url)
            await response.aclose()
        assert len(server.peers) == 1


async def _before_the_head(client: Client, url: str) -> None:
    await client.open(url)


async def _within_the_body(client: Client, url: str) -> None:
    async for _ in pieces(await client.open(url)):
        pass


async def _while_sending(client: Client, url: str) -> None:
    await client.open(url, content=b"x" * 50_000_000)


Stage = Callable[[Client, str], Coroutine[object, object, None]]


@pytest.mark.parametrize("stage", [_before_the_head, _within_the_body, _while_sending])
async def test_who_leaves_ends_the_work_at_the_server(carrier: Carrier, stage: Stage) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        if stage is _within_the_body:
            await peer.send(CHUNKED + b"2\r\nhi\r\n")
        begun.set()
        if stage is _while_sending:
            await over.wait()
        await peer.left()

    async with serving(script) as server, carrier.client(size=1) as client:
        asking = asyncio.create_task(stage(client, server.url))
        await wait(begun)
        for _ in range(10):
            await asyncio.sleep(0)
        await cancel(asking)
        over.set()
        await until(lambda: server.open == 0)


async def test_cancellation_at_every_turn_of_the_event_loop(ours: Carrier) -> None:
    """A cancellation at any point leaves nothing behind, and the next request succeeds.

    httpx's own transport loses places here until none is left.
    """

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(CHUNKED, b"2\r\nhi\r\n", b"0\r\n\r\n")

    async with serving(script) as server, ours.client(size=2) as client:
        for turns in range(60):
            tasks = [asyncio.create_task(client.ask(server.url)) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[:4]:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert ended[4].body == b"hi"  # type: ignore[union-attr]
            assert (await client.ask(server.url)).body == b"hi"


async def test_closing_the_transport_ends_all(ours: Carrier) -> None:
    async with serving(silent) as server, ours.client(size=1) as client:
        asking = asyncio.create_task(client.ask(server.url))
        await until(lambda: len(server.requests) == 1)
        waiting = asyncio.create_task(client.ask(server.url))
        await asyncio.sleep(0)
        await client.transport.aclose()
        with pytest.raises(httpx.ReadError):
            await asking
        for late in (waiting, asyncio.create_task(client.ask(server.url))):
            with pytest.raises(httpx.ConnectError):
                await late


# -------------------------------------------------------------------------------------- the clocks


async def test_a_head_that_does_not_come(carrier: Carrier) -> None:
    async with serving(silent) as server, carrier.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.ask(server.url, timeouts={"read": 0.05})
        await until(lambda: server.open == 0)


async def test_a_body_that_does_not_go_on(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nhi\r\n")
        await peer.left()

    async with serving(script) as server, carrier.client() as client:
        response = await client.open(server.url, timeouts={"read": 0.05})
        body = pieces(response)
        assert await anext(body) == b"hi"
        with pytest.raises(httpx.ReadTimeout):
            await anext(body)
        await until(lambda: server.open == 0)
        await response.aclose()


async def test_the_clock_for_reading_begins_anew_with_each_piece(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for at in range(0, len(HI), 5):
            await peer.send(HI[at : at + 5])
            await asyncio.sleep(0.15)  # together longer than the timeout
        await peer.left()

    async with serving(script) as server, carrier.client() as client:
        assert (await client.ask(server.url, timeouts={"read": 1.0})).body == b"hi"


async def test_without_clocks_nothing_is_timed(carrier: Carrier) -> None:
    async with serving(saying(HI)) as server, carrier.client() as client:
        request = httpx.Request("POST", server.url, content=b"{}")
        response = await client.transport.handle_async_request(request)
        assert await response.aread() == b"hi"
        await response.aclose()

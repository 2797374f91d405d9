"""Connections: their reuse and their number."""

import asyncio
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
import pytest

from service.upstream.transport.connection import IdleConnectionLost, ServerDisconnected
from service.upstream.transport.pool import Origin, Pool
from tests.faults.transport.carriers import Carrier, Client
from tests.faults.transport.scripted_server import Peer, cancel, saying, serving, silent
from tests.support.waiting import PATIENCE, until

HI: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
GET: Final = b"GET / HTTP/1.1\r\nhost: any\r\n\r\n"


# ------------------------------------------------------------------------------------------- reuse


async def test_a_request_can_have_a_new_connection(ours: Carrier) -> None:
    async with serving(saying(HI)) as server, ours.client() as client:
        for number in range(1, 4):
            await client.ask(server.url, extensions={"fresh": True})
            assert len(server.peers) == number
        await client.ask(server.url)
        assert len(server.peers) == 3


async def test_a_request_says_how_long_its_connection_is_kept(ours: Carrier) -> None:
    async with serving(saying(HI)) as server, ours.client() as client:
        await client.ask(server.url, extensions={"keepalive": 0.0})
        await until(lambda: server.open == 0)
        await client.ask(server.url, extensions={"keepalive": 0.05})
        await until(lambda: server.open == 0)
        await client.ask(server.url)
        assert server.open == 1


async def test_a_connection_that_is_kept_longer_delays_no_other(ours: Carrier) -> None:
    async with (
        serving(saying(HI)) as patient,
        serving(saying(HI)) as hasty,
        ours.client() as client,
    ):
        await client.ask(patient.url, extensions={"keepalive": 3600.0})
        await client.ask(hasty.url, extensions={"keepalive": 0.05})
        await until(lambda: hasty.open == 0)
        assert patient.open == 1


async def test_connections_that_expire_at_once_are_given_back_together() -> None:
    async with serving(saying(HI)) as server:
        url = httpx.URL(server.url)
        origin = Origin(secure=False, host=url.host, port=url.port or 0, keepalive=0.0001)
        pool = Pool(ssl.create_default_context(), size=3)
        taken = [await pool.acquire(origin, wait=None, connect=None) for _ in range(3)]
        for connection in taken:
            await connection.exchange(GET, b"", bodiless=False, read=None, write=None)
            assert await connection.read(None) == b"hi"
            assert await connection.read(None) == b""
        for connection in taken:
            pool.give_back(connection)
        await until(lambda: server.open == 0)
        await pool.aclose()


async def test_a_request_that_an_idle_connection_loses_is_named(ours: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()  # and closes without a response

    async with serving(script) as server, ours.client() as client:
        await client.ask(server.url)
        with pytest.raises(IdleConnectionLost):
            await client.ask(server.url)
        assert len(server.peers) == 1


async def test_a_new_connection_loses_nothing_of_that_kind(ours: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with serving(script) as server, ours.client() as client:
        with pytest.raises(ServerDisconnected) as caught:
            await client.ask(server.url)
        assert type(caught.value) is ServerDisconnected


async def test_a_response_that_began_is_not_lost_idle(ours: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()
        await peer.send(HI[:20])

    async with serving(script) as server, ours.client() as client:
        await client.ask(server.url)
        with pytest.raises(ServerDisconnected) as caught:
            await client.ask(server.url)
        assert type(caught.value) is ServerDisconnected


async def test_one_connection_carries_one_request_after_the_other(carrier: Carrier) -> None:
    async with serving(saying(HI)) as server, carrier.client() as client:
        for _ in range(5):
            assert (await client.ask(server.url)).body == b"hi"
        assert len(server.peers) == 1
        assert len(server.requests) == 5


async def test_the_connection_that_was_used_last_is_used_first(ours: Carrier) -> None:
    async with serving(saying(HI)) as server, ours.client() as client:
        responses = [await client.open(server.url) for _ in range(3)]
        for response in responses:
            await response.aread()
            await response.aclose()
        for _ in range(4):
            await client.ask(server.url)
        assert [len(peer.requests) for peer in server.peers] == [1, 1, 5]


async def test_each_server_has_connections_of_its_own(carrier: Carrier) -> None:
    async with (
        serving(saying(HI)) as first,
        serving(saying(HI)) as second,
        carrier.client() as client,
    ):
        for server in (first, second, first, second):
            assert (await client.ask(server.url)).body == b"hi"
        assert (len(first.peers), len(second.peers)) == (1, 1)


async def test_an_idle_connection_is_closed_in_time(ours: Carrier) -> None:
    async with serving(saying(HI)) as server, ours.client(keepalive=0.05) as client:
        await asyncio.gather(*(client.ask(server.url) for _ in range(3)))
        await until(lambda: server.open == 0)
        await client.ask(server.url)
        assert server.open == 1
        await until(lambda: server.open == 0)


async def test_an_idle_connection_that_the_server_closes_is_not_used(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)

    async with serving(script) as server, carrier.client() as client:
        for number in range(3):
            assert (await client.ask(server.url)).body == b"hi"
            await until(lambda: server.open == 0)
            assert len(server.peers) == number + 1


async def test_an_end_that_the_event_loop_has_not_seen_is_seen(carrier: Carrier) -> None:
    """A server closes while the event loop is busy: the next request would be lost."""

    def serve_one() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            while not connection.recv(65_536).endswith(b"{}"):
                pass
            connection.sendall(HI)
            answered.set()
            assert closing.wait(PATIENCE)

    answered, closing = threading.Event(), threading.Event()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with carrier.client() as client:
            served = thread.submit(serve_one)
            assert (await client.ask(url)).body == b"hi"
            # The event loop does not run from here to the next request.
            closing.set()
            served.result(PATIENCE)
            served = thread.submit(serve_one)
            assert (await client.ask(url)).body == b"hi"
            served.result(PATIENCE)


async def test_what_an_idle_connection_says_ends_it(ours: Carrier) -> None:
    """httpx's own transport checks only before the next request."""
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        if len(server.peers) == 1:
            await more.wait()
            await peer.send(HI)
        await peer.left()

    async with serving(script) as server, ours.client() as client:
        await client.ask(server.url)
        more.set()
        await until(lambda: server.open == 0)
        assert (await client.ask(server.url)).body == b"hi"
        assert len(server.peers) == 2


async def test_a_used_connection_that_dies_before_an_answer_is_reported(carrier: Carrier) -> None:
    """The transport does not retry; its user decides."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()

    async with serving(script) as server, carrier.client() as client:
        await client.ask(server.url)
        with pytest.raises(httpx.RemoteProtocolError) as failed:
            await client.ask(server.url)
        assert len(server.requests) == 2
    assert isinstance(failed.value, ServerDisconnected) == (carrier.name == "ours")


# --------------------------------------------------------------------------------------- number


async def test_there_are_no_more_than_the_most(carrier: Carrier) -> None:
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        while True:
            await peer.request()
            most = max(most, server.open)
            await asyncio.sleep(0)
            await peer.send(HI)

    async with serving(script) as server, carrier.client(size=3) as client:
        received = await asyncio.gather(*(client.ask(server.url) for _ in range(60)))
        assert [each.body for each in received] == [b"hi"] * 60
        assert most <= 3
        assert len(server.peers) <= 3


async def test_a_place_is_waited_for_in_turn(ours: Carrier) -> None:
    order: list[int] = []

    async def ask(client: Client, number: int) -> None:
        await client.ask(server.url)
        order.append(number)

    async with serving(saying(HI)) as server, ours.client(size=1) as client:
        await asyncio.gather(*(ask(client, number) for number in range(10)))
        assert order == list(range(10))
        assert len(server.peers) == 1


async def test_no_place_in_time(carrier: Carrier) -> None:
    async with serving(silent) as server, carrier.client(size=1) as client:
        holding = asyncio.create_task(client.ask(server.url))
        await until(lambda: len(server.requests) == 1)
        with pytest.raises(httpx.PoolTimeout):
            await client.ask(server.url, timeouts={"pool": 0.05})
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding


async def test_who_leaves_the_queue_takes_no_place_along(carrier: Carrier) -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await release.wait()
            await peer.send(HI)

    async with serving(script) as server, carrier.client(size=1) as client:
        holding = asyncio.create_task(client.ask(server.url))
        await until(lambda: len(server.requests) == 1)
        waiting = [asyncio.create_task(client.ask(server.url)) for _ in range(4)]
        await asyncio.sleep(0)
        await cancel(waiting.pop(0))
        release.set()
        for task in (holding, *waiting):
            assert (await task).body == b"hi"


async def test_a_place_that_comes_as_one_leaves_goes_to_the_next(ours: Carrier) -> None:
    async with serving(saying(HI)) as server, ours.client(size=1) as client:
        response = await client.open(server.url)
        leaving = asyncio.create_task(client.ask(server.url))
        next_one = asyncio.create_task(client.ask(server.url))
        await asyncio.sleep(0)
        # Given to the first waiter in the same iteration in which it is cancelled.
        await response.aclose()
        await cancel(leaving)
        assert (await next_one).body == b"hi"
        assert len(server.peers) == 1


async def test_an_idle_connection_gives_way_to_another_server(carrier: Carrier) -> None:
    async with (
        serving(saying(HI)) as first,
        serving(saying(HI)) as second,
        carrier.client(size=1) as client,
    ):
        for _ in range(2):
            await client.ask(first.url)
            assert (first.open, second.open) == (1, 0)
            await client.ask(second.url)
            await until(lambda: (first.open, second.open) == (0, 1))


async def test_a_connection_gives_way_to_who_waits_for_another_server(carrier: Carrier) -> None:
    async with (
        serving(saying(HI)) as first,
        serving(saying(HI)) as second,
        carrier.client(size=1) as client,
    ):
        urls = [first.url, second.url] * 10
        received = await asyncio.gather(*(client.ask(url) for url in urls))
        assert [each.body for each in received] == [b"hi"] * len(urls)


async def test_a_place_is_free_after_each_failure(carrier: Carrier) -> None:
    async def closing(peer: Peer) -> None:
        await peer.request()

    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        async with (
            serving(closing) as dead,
            serving(silent) as mute,
            serving(saying(b"no HTTP\r\n\r\n")) as wrong,
            serving(saying(HI)) as sound,
            carrier.client(size=1) as client,
        ):
            failing: list[tuple[str, type[httpx.TransportError]]] = [
                (refusing, httpx.ConnectError),
                (dead.url, httpx.RemoteProtocolError),
                (mute.url, httpx.ReadTimeout),
                (wrong.url, httpx.RemoteProtocolError),
            ]
            for url, kind in failing:
                with pytest.raises(kind):
                    await client.ask(url, timeouts={"read": 0.05})
                assert (await client.ask(sound.url)).body == b"hi"

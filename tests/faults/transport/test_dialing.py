"""Opening connections: names, addresses that do not respond, TLS, and the connect timeout."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import pytest
import trustme

from service.upstream.transport import dialing
from tests.faults.transport.carriers import Carrier, pieces
from tests.faults.transport.scripted_server import Peer, Server, saying, serving
from tests.support.waiting import until

HI: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
LARGE: Final = bytes(range(256)) * 40_000
OURS: Final = trustme.CA()
OTHERS: Final = trustme.CA()
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
GOOD: Final = OURS.issue_cert("localhost")
BAD: Final = {
    "another name": OURS.issue_cert("upstream.example"),
    "expired": OURS.issue_cert(
        "localhost", not_before=LONG_AGO, not_after=LONG_AGO.replace(year=2021)
    ),
    "another authority": OTHERS.issue_cert("localhost"),
}


def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts the tests' authority."""
    context = ssl.create_default_context()
    OURS.configure_trust(context)
    return context


def showing(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return a server's context with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


# ------------------------------------------------------------------------------------------- TLS


async def test_requests_over_tls(carrier: Carrier) -> None:
    async with (
        serving(saying(HI), showing(GOOD)) as server,
        carrier.client(authority=trusting()) as client,
    ):
        for _ in range(3):
            assert (await client.ask(server.url, content=LARGE)).body == b"hi"
        assert len(server.peers) == 1


async def test_the_name_and_the_protocol_are_told(carrier: Carrier) -> None:
    told: list[str | None] = []
    context = showing(GOOD)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda _, name, __: told.append(name)

    async def script(peer: Peer) -> None:
        await peer.request()
        told.append(peer.protocol)
        await peer.send(HI)
        await peer.left()

    async with serving(script, context) as server, carrier.client(authority=trusting()) as client:
        await client.ask(server.url)
    assert told == ["localhost", "http/1.1"]


@pytest.mark.parametrize("name", BAD)
async def test_a_certificate_that_is_not_right(carrier: Carrier, name: str) -> None:
    async with (
        _tolerant(saying(HI), showing(BAD[name])) as server,
        carrier.client(size=1, authority=trusting()) as client,
    ):
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await client.ask(server.url)
        assert server.requests == []


@asynccontextmanager
async def _tolerant(script: Any, context: ssl.SSLContext) -> AsyncIterator[Server]:
    """Run a server whose clients abort handshakes, which the event loops log."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    async with serving(script, context) as server:
        yield server


async def test_tls_spoken_to_a_server_without_it(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad\r\n\r\n")

    async with serving(script) as server, carrier.client(size=1) as client:
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await client.ask(server.url.replace("http:", "https:"))


async def test_a_handshake_that_does_not_come(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.left()

    async with serving(script) as server, carrier.client(size=1) as client:
        for _ in range(2):
            with pytest.raises(httpx.ConnectTimeout):
                await client.ask(server.url.replace("http:", "https:"), timeouts={"connect": 0.05})
        asking = asyncio.create_task(client.ask(server.url.replace("http:", "https:")))
        await until(lambda: server.open == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: server.open == 0)


@pytest.mark.parametrize(
    "framed", [b"content-length: 9\r\n\r\nhi", b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"]
)
async def test_a_body_over_tls_that_breaks_off(carrier: Carrier, framed: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + framed)

    async with (
        serving(script, showing(GOOD)) as server,
        carrier.client(authority=trusting()) as client,
    ):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.ask(server.url)


async def test_a_body_over_tls_until_the_connection_ends(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + LARGE)

    async with (
        serving(script, showing(GOOD)) as server,
        carrier.client(authority=trusting()) as client,
    ):
        assert (await client.ask(server.url)).body == LARGE


async def test_a_body_over_tls_that_nobody_reads_is_not_read(ours: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(LARGE), LARGE)
        await peer.left()

    async with (
        serving(script, showing(GOOD)) as server,
        ours.client(authority=trusting()) as client,
    ):
        response = await client.open(server.url)
        (connection,) = client.transport._pool._connections  # type: ignore[attr-defined]
        await until(lambda: connection._paused)
        assert connection.parser.buffered < 1_000_000
        assert b"".join([piece async for piece in pieces(response)]) == LARGE
        await response.aclose()


async def test_a_server_that_does_not_read_over_tls(carrier: Carrier) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await over.wait()
        await peer.left()

    over = asyncio.Event()
    async with (
        serving(script, showing(GOOD)) as server,
        carrier.client(authority=trusting()) as client,
    ):
        with pytest.raises(httpx.WriteTimeout):
            # More than the sockets of both ends hold.
            await client.ask(server.url, content=LARGE * 5, timeouts={"write": 0.1})
        over.set()


# ------------------------------------------------------------------------------ names and addresses


async def test_a_port_where_nobody_listens(carrier: Carrier) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        async with carrier.client(size=1) as client:
            for _ in range(2):
                with pytest.raises(httpx.ConnectError):
                    await client.ask(f"http://127.0.0.1:{unheard.getsockname()[1]}")


@pytest.mark.parametrize("host", ["upstream.invalid", "a" * 64 + ".invalid", "1.2.3.4.5"])
async def test_a_name_that_is_unknown(ours: Carrier, host: str) -> None:
    async with ours.client(size=1) as client:
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await client.ask(f"http://{host}/")


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """Yield an address that does not respond: its queue of connections is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        yield address
        for each in waiting:
            each.close()


async def test_a_server_that_does_not_answer(carrier: Carrier, black_hole: tuple[str, int]) -> None:
    async with carrier.client(size=1) as client:
        for _ in range(2):
            with pytest.raises(httpx.ConnectTimeout):
                await client.ask(f"http://127.0.0.1:{black_hole[1]}", timeouts={"connect": 0.05})


def naming(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Make every name resolve to these addresses."""

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [
            (
                socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                address,
            )
            for address in addresses
        ]

    class Loop:
        """The event loop with another resolver; uvloop's loop cannot be patched."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real(), name)

    real = asyncio.get_running_loop
    loop = Loop()
    loop.getaddrinfo = getaddrinfo  # type: ignore[attr-defined]

    class Asyncio:
        """asyncio with that event loop."""

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        def get_running_loop(self) -> Any:
            return loop

    monkeypatch.setattr(dialing, "asyncio", Asyncio())


async def test_the_next_address_is_tried_while_the_first_is_silent(
    ours: Carrier, monkeypatch: pytest.MonkeyPatch, black_hole: tuple[str, int]
) -> None:
    async with serving(saying(HI)) as server, ours.client() as client:
        naming(monkeypatch, black_hole, ("127.0.0.1", server.port))
        assert (await client.ask("http://two.example/")).body == b"hi"


async def test_the_next_address_is_tried_at_once_when_the_first_refuses(
    ours: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialing, "ATTEMPT_DELAY", 3600)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        async with serving(saying(HI)) as server, ours.client() as client:
            naming(monkeypatch, unheard.getsockname(), ("127.0.0.1", server.port))
            assert (await client.ask("http://two.example/")).body == b"hi"


async def test_the_families_take_turns(
    ours: Carrier, monkeypatch: pytest.MonkeyPatch, black_hole: tuple[str, int]
) -> None:
    """The second family comes next, although the first has three addresses."""
    tried = []
    connect = dialing._connect

    async def noting(loop: Any, address: Any) -> socket.socket:
        tried.append(address[3][0])
        return await connect(loop, address)

    monkeypatch.setattr(dialing, "_connect", noting)
    async with serving(saying(HI)) as server, ours.client() as client:
        six = ("::1", 1)
        naming(monkeypatch, six, six, six, ("127.0.0.1", server.port))
        assert (await client.ask("http://four.example/")).body == b"hi"
    assert tried == ["::1", "127.0.0.1"]


async def test_all_addresses_fail(ours: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        async with ours.client() as client:
            naming(monkeypatch, unheard.getsockname(), unheard.getsockname())
            with pytest.raises(httpx.ConnectError):
                await client.ask("http://two.example/")


async def test_who_leaves_while_addresses_are_tried_leaves_no_socket(
    ours: Carrier, monkeypatch: pytest.MonkeyPatch, black_hole: tuple[str, int]
) -> None:
    monkeypatch.setattr(dialing, "ATTEMPT_DELAY", 0.01)
    async with serving(saying(HI)), ours.client(size=1) as client:
        naming(monkeypatch, black_hole, black_hole, black_hole)
        with pytest.raises(httpx.ConnectTimeout):
            await client.ask("http://three.example/", timeouts={"connect": 0.1})

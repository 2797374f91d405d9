"""A server that sends each connection exactly the bytes of a test.

async def script(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nhi")

async with serving(script) as server:
    ...

The connection closes when the script ends. A script also ends if its client has disconnected.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.support.waiting import PATIENCE, until


class Peer:
    """A client's connection, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.requests: list[bytes] = []
        """The received heads and bodies."""
        self.closed = False
        """Whether the connection is over."""

    @property
    def protocol(self) -> str | None:
        """The protocol that TLS negotiated."""
        secured: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return secured.selected_alpn_protocol()

    async def head(self) -> bytes:
        """Read the head of a request.

        Raises:
            EOFError: the client has left.
        """
        return await self._reader.readuntil(b"\r\n\r\n")

    async def request(self) -> bytes:
        """Read a request with a length and return it whole.

        Raises:
            EOFError: the client has left.
        """
        head = await self.head()
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        body = await self._reader.readexactly(int(length or 0))
        self.requests.append(head + body)
        return head + body

    async def line(self) -> bytes:
        """Read a line with its end."""
        return await self._reader.readuntil(b"\r\n")

    async def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        return await self._reader.readexactly(size)

    async def rest(self) -> bytes:
        """Read until the client has left."""
        received = bytearray()
        with suppress(ConnectionError):
            while data := await self._reader.read(65_536):
                received += data
        return bytes(received)

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each in a packet of its own."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def left(self) -> None:
        """Wait until the client disconnects, and drop the bytes that it sends."""
        await self.rest()

    def reset(self) -> None:
        """Reset the connection."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """A server and its connections."""

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.peers: list[Peer] = []
        self.url = f"{scheme}://localhost:{port}"

    @property
    def open(self) -> int:
        """The number of open connections."""
        return sum(not peer.closed for peer in self.peers)

    @property
    def requests(self) -> list[bytes]:
        """The requests that were read completely, by connection."""
        return [request for peer in self.peers for request in peer.requests]


@asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a server on 127.0.0.1. It ends when all clients have disconnected.

    Args:
        script: The script of each connection.
        context: The TLS context; None for plain TCP.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        server.peers.append(peer)
        try:
            async with asyncio.timeout(PATIENCE):
                await script(peer)
        except (EOFError, ConnectionError):
            pass
        finally:
            await peer.close()
            peer.closed = True

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    server = Server(listener.sockets[0].getsockname()[1], "http" if context is None else "https")
    try:
        yield server
        await until(lambda: server.open == 0, "a client has not left")
    finally:
        listener.close()
        await listener.wait_closed()


def saying(*pieces: bytes) -> Script:
    """Return the same bytes for each request of a connection."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)

    return script


async def silent(peer: Peer) -> None:
    """Read a request and send nothing."""
    await peer.request()
    await peer.left()


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task and check that it ends as cancelled."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

"""An address that leads to one server after another, like a virtual address or a proxy.

    with address(primary.port) as moving:
        url = primary.tcp_url(database, moving.port)
        moving.lead(standby.port)               existing connections stay
        moving.lead(standby.port, cut=True)     existing connections break

It has a thread of its own: a store waits for its server on the event loop of a test, too.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_WITHIN: Final = 10.0
_PIECE: Final = 65536


class Address:
    """A port; `address` makes one.

    Args:
        target: The port of the server that it leads to at first.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._ends: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_WITHIN)

    def lead(self, target: int, *, cut: bool = False) -> None:
        """Make later connections lead to another server.

        Args:
            target: Its port.
            cut: Whether to break existing connections.
        """
        asyncio.run_coroutine_threadsafe(self._lead(target, cut), self._loop).result(_WITHIN)

    def close(self) -> None:
        """Close all of it."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_WITHIN)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WITHIN)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _lead(self, target: int, cut: bool) -> None:
        self._target = target
        if cut:
            self._cut()

    def _cut(self) -> None:
        for end in self._ends:
            end.transport.abort()

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self._cut()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._ends.add(client)
        try:
            with suppress(OSError):  # the server is not there
                answers, server = await asyncio.open_connection("127.0.0.1", self._target)
                self._ends.add(server)
                try:
                    await asyncio.gather(_pass(reader, server), _pass(answers, client))
                finally:
                    self._ends.discard(server)
                    server.close()
        finally:
            self._ends.discard(client)
            client.close()
            self._connections.discard(task)


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # one end was cut
        while piece := await source.read(_PIECE):
            target.write(piece)
            await target.drain()
    target.close()


@contextmanager
def address(target: int) -> Iterator[Address]:
    """Listen on a free port that leads to the port of a server."""
    moving = Address(target)
    moving.start()
    try:
        yield moving
    finally:
        moving.close()

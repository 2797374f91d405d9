"""A proxy that cuts connections after some bytes of the response.

async with Cutter(port, 0, 20) as base_url:  # before the status line, then within the headers
    sdk = AsyncOpenAI(base_url=base_url, max_retries=2)
"""

import asyncio
from contextlib import suppress


class Cutter:
    """A proxy that cuts connections after some bytes of the response.

    Args:
        target: The port of the bridge.
        after: For each connection in turn, the bytes of the response that pass; later connections
            stay.
    """

    def __init__(self, target: int, *after: int) -> None:
        self._target = target
        self._after = list(after)
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        if self._relays:
            await asyncio.wait(self._relays)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        left = self._after.pop(0) if self._after else None
        # Nothing else has a reference to it.
        relay = asyncio.create_task(self._relay(reader, writer, left))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None
    ) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        sending = asyncio.create_task(_pump(reader, back))
        try:
            with suppress(OSError):
                while data := await there.read(65536):
                    if left is not None and len(data) > left:
                        writer.write(data[:left])
                        break
                    left = None if left is None else left - len(data)
                    writer.write(data)
                    await writer.drain()
        finally:
            sending.cancel()
            writer.transport.abort()
            back.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

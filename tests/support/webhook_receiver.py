"""A receiver of webhooks that answers as a test wants, on a free port.

async with receiver() as hooks:
    hooks.replies = [500, "hang", 204]      the replies to the next requests; then 204
    await until(lambda: hooks.ids == ["…"])
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Reply = int | Literal["hang", "close", "reset", "endless"]
"""A status; or no reply, no reply and the end of the connection, half a reply and a reset, or a
reply whose body never ends."""

_REDIRECTS: Final = range(300, 400)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """A request that arrived."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(slots=True, eq=False)
class Receiver:
    """The receiver."""

    port: int = 0
    hooks: list[Hook] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    usual: Reply = 204
    connections: int = 0

    @property
    def url(self) -> str:
        """The URL for events."""
        return f"http://127.0.0.1:{self.port}/hooks?token=canary"

    @property
    def ids(self) -> list[str]:
        """The ids of all requests, in their order."""
        return [hook.headers["webhook-id"] for hook in self.hooks]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        self.hooks.append(Hook(headers=headers, body=body))
        reply = self.replies.pop(0) if self.replies else self.usual
        if reply == "hang":
            await reader.read()
            return False
        if reply == "close":
            return False
        if reply in ("reset", "endless"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000000\r\n\r\nhalf")
            await writer.drain()
            if reply == "reset":
                writer.transport.abort()
                return False
            while not reader.at_eof():
                writer.write(b"x" * 65536)
                await writer.drain()
            return False
        location = b"location: /elsewhere\r\n" if int(reply) in _REDIRECTS else b""
        content = b"" if reply == 204 else b"content-length: 2\r\n"
        rest = b"" if reply == 204 else b"ok"
        writer.write(b"HTTP/1.1 %d X\r\n%b%b\r\n%b" % (int(reply), location, content, rest))
        await writer.drain()
        return True


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver."""
    hooks = Receiver()
    server = await asyncio.start_server(hooks.serve, "127.0.0.1", 0)
    hooks.port = server.sockets[0].getsockname()[1]
    try:
        yield hooks
    finally:
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None

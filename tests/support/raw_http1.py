"""An HTTP/1.1 connection for requests that no client library sends.

answer = await raw.ask(b"GET /healthz HTTP/1.1\\r\\n...")
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.waiting import PATIENCE


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A response on a raw connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """Return the OpenAI error object of the body, which must contain nothing else."""
        document = json.loads(self.body)
        assert list(document) == ["error"]
        assert set(document["error"]) >= {"message", "type", "param", "code"}
        error: dict[str, Any] = document["error"]
        return error


class Raw:
    """A connection for requests that no client library sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send some bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """Read one response with a length."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status=int(status.split(" ")[1]), headers=headers, body=body)

    async def ask(self, data: bytes) -> Answer:
        """Send some bytes and read one response."""
        await self.send(data)
        return await self.answer()

    async def end(self) -> bytes:
        """Read until the other side closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

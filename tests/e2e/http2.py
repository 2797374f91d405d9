"""HTTP/2 frame by frame, for calls that no gRPC client makes.

async with connect(address) as connection:
    answer = await connection.call(CHECK, ("grpc-timeout", "garbage"))
    answer.status     the gRPC status code, as text
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import h2.config
import h2.connection
import h2.events

from tests.e2e.running import PATIENCE

CHECK: Final = "/grpc.health.v1.Health/Check"
"""A method that needs no key, and takes an empty message."""

_EMPTY_MESSAGE: Final = bytes(5)  # not compressed, of no bytes
_CONFIG: Final = h2.config.H2Configuration(
    header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a call was answered."""

    headers: Mapping[str, str]
    """The headers and the trailers."""

    @property
    def status(self) -> str:
        """The gRPC status code; "" where there was none, as where the stream was reset."""
        return self.headers.get("grpc-status", "")

    @property
    def text(self) -> str:
        """The text of the status."""
        return self.headers.get("grpc-message", "")


class Connection:
    """An HTTP/2 connection; its encoder indexes every header that the peer lets it index.

    Args:
        reader: From the peer.
        writer: To the peer.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h2 = h2.connection.H2Connection(_CONFIG)
        self._h2.initiate_connection()

    async def settled(self) -> None:
        """Wait for the peer's settings; without that, the first call goes out before them."""
        async with asyncio.timeout(PATIENCE):
            while not any(
                isinstance(event, h2.events.RemoteSettingsChanged) for event in await self._events()
            ):
                pass

    async def call(self, path: str, *headers: tuple[str, str]) -> Answer:
        """Call a method with an empty message.

        Args:
            path: The method.
            headers: Headers besides those of every call; each takes the place of its namesake.
        """
        usual = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, list({**usual, **dict(headers)}.items()))
        self._h2.send_data(stream, _EMPTY_MESSAGE, end_stream=True)
        return Answer(headers=await self._answer(stream))

    async def _answer(self, stream: int) -> Mapping[str, str]:
        found: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in await self._events():
                    if getattr(event, "stream_id", None) != stream:
                        continue
                    if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                        found.update((str(name), str(value)) for name, value in event.headers)
                    if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                        return found

    async def _events(self) -> list[h2.events.Event]:
        """Send what is to be sent, and return what comes next."""
        self._writer.write(self._h2.data_to_send())
        data = await self._reader.read(65_536)
        assert data, "the peer closed the connection"
        events = self._h2.receive_data(data)
        self._writer.write(self._h2.data_to_send())
        return events


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Connection]:
    """Open a connection to an address, given as host:port."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

"""A gRPC caller that sends arbitrary HTTP/2 frames.

async with dial(address) as raw:
    stream = raw.begin("/package.Service/Method", end=True)     HEADERS with END_STREAM, no message
    ended = await raw.ended(stream)                             the result: Ended(code, ...)
    await raw.call(CHECK, b"", headers={"te": "garbage"})       both, with a further header
"""

import asyncio
import struct
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.settings
from google.rpc import status_pb2

from chatcompletion.v1 import error_pb2
from tests.support.waiting import PATIENCE

CHECK: Final = "/grpc.health.v1.Health/Check"
"""A method that needs no key and accepts an empty message."""

_FRAME_HEAD: Final = 9
_GOAWAY: Final = 7
_TRAILERS: Final = "grpc-status"
NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The end of a stream."""

    code: int | None
    """The gRPC status; None if there was none, for example because the stream was reset."""
    message: str = ""
    trailers: Mapping[str, bytes] = field(default_factory=dict)
    after_goaway: bool = False
    """Whether the service had sent GOAWAY before."""

    @property
    def reason(self) -> str:
        """The `code` of the error object in the status."""
        packed = self.trailers["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(b64decode(packed + b"=" * (-len(packed) % 4)))
        detail = error_pb2.ErrorDetail()
        assert any(found.Is(detail.DESCRIPTOR) and found.Unpack(detail) for found in status.details)
        return detail.error.code_text


class Raw:
    """One connection. Its encoder indexes every header that the peer allows it to index."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._settled = asyncio.Event()
        self._ended: dict[int, asyncio.Future[Ended]] = {}
        self._data: dict[int, bytearray] = {}
        self._answered: set[int] = set()
        self.goaway = asyncio.Event()
        """Set when the service has sent GOAWAY."""

    async def settled(self) -> None:
        """Wait for the peer's settings. Otherwise, the first call would be sent before them."""
        async with asyncio.timeout(PATIENCE):
            await self._settled.wait()

    async def call(
        self, method: str | bytes, *messages: bytes, headers: Mapping[str, str] = NONE
    ) -> Ended:
        """Make a call, with the arguments of `begin`, and wait for its end."""
        return await self.ended(self.begin(method, *messages, headers=headers))

    def begin(
        self,
        method: str | bytes,
        *messages: bytes,
        end: bool = True,
        key: str | None = None,
        timeout: str | None = None,
        headers: Mapping[str, str] = NONE,
    ) -> int:
        """Start a call and return its stream.

        Args:
            method: The path.
            messages: The request messages, serialized.
            end: Whether the last frame has END_STREAM.
            key: The API key; None sends none.
            timeout: The value of `grpc-timeout`; None sends none.
            headers: Further headers, which replace those with the same name.
        """
        stream = self._h2.get_next_available_stream_id()
        sent: dict[str, str | bytes] = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        if timeout is not None:
            sent["grpc-timeout"] = timeout
        sent.update(headers)
        self._ended[stream] = asyncio.get_running_loop().create_future()
        self._data[stream] = bytearray()
        self._h2.send_headers(stream, list(sent.items()), end_stream=end and not messages)
        for number, message in enumerate(messages, 1):
            last = end and number == len(messages)
            self._h2.send_data(stream, framed(message), end_stream=last)
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send a DATA frame."""
        self._h2.send_data(stream, data, end_stream=end)
        self._flush()

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self._h2.reset_stream(stream, error_code=8)
        self._flush()

    def ping(self) -> None:
        """Send a PING frame."""
        self._h2.ping(bytes(8))
        self._flush()

    async def ended(self, stream: int) -> Ended:
        """Wait for the end of a call."""
        async with asyncio.timeout(PATIENCE):
            return await self._ended[stream]

    def is_over(self, stream: int) -> bool:
        """Whether a call has ended."""
        return self._ended[stream].done()

    def is_answered(self, stream: int) -> bool:
        """Whether the headers of the response have arrived."""
        return stream in self._answered

    def data(self, stream: int) -> bytes:
        """Return the data of a call so far, with gRPC's prefixes."""
        return bytes(self._data[stream])

    async def run(self) -> None:
        """Read frames until the service closes the connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(_FRAME_HEAD)
                rest = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == _GOAWAY:
                    # h2 would end the connection here, but calls in flight continue.
                    self.goaway.set()
                    continue
                for event in self._h2.receive_data(head + rest):
                    self._take(event)
                self._flush()
        for ended in self._ended.values():
            if not ended.done():
                ended.set_result(Ended(code=None, message="the connection was closed"))

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            found = {bytes(k).decode(): bytes(v) for k, v in event.headers or ()}
            stream = event.stream_id
            if stream is not None:
                self._answered.add(stream)
            if stream is not None and _TRAILERS in found and not self._ended[stream].done():
                code, message = (
                    int(found[_TRAILERS]),
                    found.get("grpc-message", b"").decode(errors="replace"),
                )
                self._ended[stream].set_result(
                    Ended(
                        code=code,
                        message=message,
                        trailers=found,
                        after_goaway=self.goaway.is_set(),
                    )
                )
        elif isinstance(event, h2.events.StreamReset):
            ended = self._ended[event.stream_id]
            if not ended.done():
                ended.set_result(Ended(code=None, message=f"reset: {event.error_code}"))
        elif isinstance(event, h2.events.StreamEnded):
            ended = self._ended[event.stream_id]
            if not ended.done():
                ended.set_result(Ended(code=None, message="no status"))
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._settled.set()
        elif isinstance(event, h2.events.DataReceived):
            self._data[event.stream_id] += event.data or b""
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)

    def start(self, window: int) -> None:
        """Send the connection preface.

        Args:
            window: The initial window of each response, in bytes.
        """
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
            },
        )
        self._h2.initiate_connection()
        self._flush()

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())


def framed(message: bytes) -> bytes:
    """Return a message with gRPC's prefix."""
    return struct.pack(">BI", 0, len(message)) + message


@asynccontextmanager
async def dial(address: str, *, window: int = 65535) -> AsyncIterator[Raw]:
    """Connect to a service and hang up at the end.

    Args:
        address: As host:port.
        window: The initial window of each response, in bytes; 0 simulates a caller who does not
            read.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    raw = Raw(reader, writer)
    raw.start(window)
    reading = asyncio.create_task(raw.run())
    try:
        yield raw
    finally:
        writer.close()
        reading.cancel()
        await asyncio.wait([reading])

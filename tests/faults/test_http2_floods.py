"""Floods of HTTP/2 frames on one connection: the service lives, answers others and stays small.

attacker -> frames without an end -> service <- health check on another connection
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import grpc
import hpack
import pytest

from tests.support.processes import Process, service_process
from tests.support.raw_http2 import CHECK, dial

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
MOST_MEMORY: Final = 64 * 1024 * 1024
"""Maximum growth of the process, in bytes."""
CALLS: Final = 10
"""The number of calls of others at the same time."""
CROWD: Final = 1000
"""The number of calls with large headers at once."""
CREATE: Final = "/chatcompletion.v1.ChatCompletionService/CreateChatCompletion"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def headers(method: str, *further: tuple[str, str]) -> bytes:
    """Return the header block of a call, without entries for the table."""
    pairs = (
        *((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "a")),
        *(("te", "trailers"), ("content-type", "application/grpc")),
        *further,
    )
    encoder = hpack.Encoder()
    never: list[hpack.NeverIndexedHeaderTuple] = [hpack.NeverIndexedHeaderTuple(*p) for p in pairs]
    return bytes(encoder.encode(never))


def _calls(method: str) -> Iterator[bytes]:
    """Calls that are cancelled at once."""
    block = headers(method)
    for number in range(20_000):
        stream = 2 * number + 1
        cancel = frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))
        yield frame(HEADERS, END_HEADERS, stream, block) + cancel


def resets() -> Iterator[bytes]:
    """Calls without a key that are cancelled at once."""
    return _calls(CREATE)


def resets_of_probes() -> Iterator[bytes]:
    """Health checks that are cancelled at once."""
    return _calls(CHECK)


def continuations() -> Iterator[bytes]:
    """Headers that do not end: 320 MB."""
    yield frame(HEADERS, 0, 1, headers(CHECK))
    header = headers(CHECK, ("x-junk", "j" * 8000))
    for _ in range(40_000):
        yield frame(CONTINUATION, 0, 1, header)


def continuations_below_the_limit() -> Iterator[bytes]:
    """Headers that do not end, each frame of which is below the limit of all: 240 MB."""
    yield frame(HEADERS, 0, 1, headers(CHECK))
    encoder = hpack.Encoder()
    for number in range(20_000):
        pairs = [hpack.NeverIndexedHeaderTuple(f"x-{number}-{n}", "j" * 4000) for n in range(3)]
        yield frame(CONTINUATION, 0, 1, bytes(encoder.encode(pairs, huffman=False)))


def empty_continuations() -> Iterator[bytes]:
    """Headers that continue with nothing."""
    yield frame(HEADERS, 0, 1, headers(CHECK))
    for _ in range(200):
        yield frame(CONTINUATION, 0, 1) * 1000


def pings() -> Iterator[bytes]:
    """Pings whose answers nobody reads."""
    for _ in range(200):
        yield frame(PING, 0, 0, bytes(8)) * 1000


def settings() -> Iterator[bytes]:
    """Settings whose answers nobody reads."""
    for number in range(200):
        window = (65_535 + number).to_bytes(4, "big")
        yield frame(SETTINGS, 0, 0, b"\x00\x04" + window) * 1000


def empty_data() -> Iterator[bytes]:
    """Data that says nothing, in a call without a key that does not end."""
    yield frame(HEADERS, END_HEADERS, 1, headers(CHECK))
    for _ in range(200):
        yield frame(DATA, 0, 1) * 1000


def windows() -> Iterator[bytes]:
    """Windows that grow by one."""
    yield frame(HEADERS, END_HEADERS, 1, headers(CHECK))
    for _ in range(200):
        yield frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big")) * 1000


def overflowing_windows() -> Iterator[bytes]:
    """Windows that exceed their maximum."""
    largest = (2**31 - 1).to_bytes(4, "big")
    for number in range(1000):
        stream = 2 * number + 1
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, headers(CHECK))
        yield frame(WINDOW_UPDATE, 0, stream, largest) + frame(WINDOW_UPDATE, 0, 0, largest)


def hpack_bomb() -> Iterator[bytes]:
    """A large header, and blocks that repeat it thousands of times by one byte each."""
    added = b"\x40\x01x" + hpack.hpack.encode_integer(3900, 7) + b"b" * 3900
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, headers(CHECK) + added)
    for number in range(1, 200):
        yield frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, b"\xbe" * 16_000)


FLOODS: Final = (
    *(resets, resets_of_probes, pings, settings),
    *(continuations, continuations_below_the_limit, empty_continuations, empty_data),
    *(windows, overflowing_windows, hpack_bomb),
)


async def _flood(address: str, frames: Iterator[bytes]) -> None:
    """Send frames until the end, or until the service stops reading or closes the connection."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    with suppress(ConnectionError, TimeoutError):
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        for some in frames:
            writer.write(some)
            async with asyncio.timeout(2):  # the service waits until its answers are read
                await writer.drain()
    writer.close()


def _status(process: Process, name: str) -> int:
    """Return a line of the memory of a process, in bytes."""
    text = Path(f"/proc/{process.process.pid}/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _forget_peak(process: Process) -> None:
    Path(f"/proc/{process.process.pid}/clear_refs").write_text("5")


async def _check(address: str) -> int | None:
    async with dial(address) as other:
        return (await other.call(CHECK, b"")).code


@pytest.mark.alone
@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_costs_little_and_nobody_else(flood: "type[Iterator[bytes]]") -> None:
    async with service_process() as (running, caller):
        address = await running.address()
        await caller.create("default")
        await _flood(address, flood())
        _forget_peak(running)
        before = _status(running, "VmRSS")
        flooding = asyncio.create_task(_flood(address, flood()))
        while not flooding.done():
            assert await _check(address) == 0
            await asyncio.gather(*(caller.create("default") for _ in range(CALLS)))
        await flooding
        assert await _check(address) == 0
        assert _status(running, "VmHWM") - before < MOST_MEMORY
        await caller.create("default")
        assert running.process.returncode is None
        assert not [line for line in running.lines if '"level":"error"' in line]


@pytest.mark.alone
async def test_a_crowd_with_large_headers_costs_little() -> None:
    large = tuple((f"x-{number}", "j" * 4000) for number in range(15))
    async with service_process() as (running, caller):
        await caller.create("default")
        _forget_peak(running)
        before = _status(running, "VmRSS")
        calls = (caller.refusal("default", metadata=large) for _ in range(CROWD))
        codes = {failure.code for failure in await asyncio.gather(*calls)}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert _status(running, "VmHWM") - before < MOST_MEMORY
        await caller.create("default")

"""A client of the simulator that works on bytes."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.simulator import RequestRecord, SimulatorServer

MESSAGES = [{"role": "user", "content": "Hello there, simulator."}]
MEBIBYTE = 1024 * 1024


@dataclass(kw_only=True)
class Answer:
    """The bytes that were received until the connection ended."""

    raw: bytes
    reset: bool = False

    @property
    def head(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").lower()

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def chunks(self) -> list[bytes]:
        """The HTTP chunks of the body, the terminating (empty) one included."""
        place = self.raw.index(b"\r\n\r\n") + 4
        found: list[bytes] = []
        while place < len(self.raw):
            start = self.raw.index(b"\r\n", place) + 2
            length = int(self.raw[place : start - 2], 16)
            found.append(self.raw[start : start + length])
            place = start + length + 2
        return found

    @property
    def terminated(self) -> bool:
        return self.raw.endswith(b"\r\n0\r\n\r\n")

    @property
    def body(self) -> bytes:
        if "transfer-encoding: chunked" in self.head:
            return b"".join(self.chunks)
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def payloads(self) -> list[str]:
        """Return the data of the events of a stream in the usual framing."""
        blocks = self.body.decode().split("\n\n")
        return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]

    @property
    def events(self) -> list[Any]:
        return [json.loads(payload) for payload in self.payloads if payload != "[DONE]"]

    @property
    def done(self) -> bool:
        return self.body.endswith(b"data: [DONE]\n\n")

    @property
    def finish_reasons(self) -> list[str]:
        choices = [choice for event in self.events for choice in event.get("choices", ())]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]

    @property
    def sound(self) -> bool:
        """Whether the stream is complete."""
        return self.done and self.terminated and self.finish_reasons == ["stop"]

    @property
    def text(self) -> str:
        choices = [choice for event in self.events for choice in event["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


def request_bytes(body: bytes, *headers: str, target: str = "POST /v1/chat/completions") -> bytes:
    lines = [f"{target} HTTP/1.1", "host: simulator", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def completion_body(model: str, **members: Any) -> bytes:
    return json.dumps({"model": model, "messages": MESSAGES, **members}).encode()


async def read_until(
    reader: asyncio.StreamReader, enough: Callable[[bytes], bool] | None
) -> Answer:
    """Read until the end of the connection or until `enough`."""
    raw = bytearray()
    try:
        while piece := await reader.read(MEBIBYTE):
            raw += piece
            if enough is not None and enough(bytes(raw)):
                break
    except ConnectionResetError:
        return Answer(raw=bytes(raw), reset=True)
    return Answer(raw=bytes(raw))


async def ask(
    server: SimulatorServer,
    model: str,
    *,
    enough: Callable[[bytes], bool] | None = None,
    **members: Any,
) -> Answer:
    """Request a completion on a new connection, and close it after `enough`."""
    body = completion_body(model, **members)
    return await send(server, request_bytes(body, "connection: close"), enough=enough)


async def send(
    server: SimulatorServer, data: bytes, *, enough: Callable[[bytes], bool] | None = None
) -> Answer:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(data)
        return await read_until(reader, enough)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ended(record: RequestRecord) -> str | None:
    async with asyncio.timeout(10):
        await record.ended.wait()
    return record.outcome

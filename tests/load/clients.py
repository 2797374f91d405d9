"""Clients that cost little: HTTP/1.1 on asyncio's protocols, and grpc.aio.

    Request -> Caller.ask -> Seen

A caller has one request at a time. Over HTTP it has a connection of its own; over gRPC, callers
share a channel, as the parts of a program do. A response that is not a whole success ends the
benchmark: a figure of failures says nothing.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

import grpc

from chatcompletion.v1 import chat_completion_service_pb2 as messages
from chatcompletion.v1 import chat_completion_service_pb2_grpc as services
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ChatMessage

SYSTEM: Final = "You are a helpful assistant."
PROMPT: Final = "Tell me about the sea. " * 10
OUTPUT_LIMIT: Final = 1024

_EVENT: Final = b"data: {"
_DONE: Final = b"data: [DONE]"
_HEAD_END: Final = b"\r\n\r\n"
_LAST_PART: Final = b"0\r\n\r\n"
_PATIENCE: Final = 60.0


class UnexpectedError(Exception):
    """A response that is no whole success; the text shows it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request for a completion."""

    model: str
    streamed: bool
    prompt: str = PROMPT


@dataclass(slots=True)
class Seen:
    """What a caller saw of a response: times of `time.perf_counter`, and the chunks."""

    first: float
    ended: float
    chunks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a system takes requests."""

    protocol: Literal["rest", "grpc"]
    address: str
    key: str


class Caller(Protocol):
    """Makes one request at a time."""

    chunks: int
    """The chunks received so far, in all."""

    async def ask(self, request: Request) -> Seen:
        """Make a request and return when its response has ended.

        Raises:
            UnexpectedError: the response is no whole success.
        """
        ...


@asynccontextmanager
async def connected(target: Target, count: int) -> AsyncIterator[list[Caller]]:
    """Connect callers; at the end, leave whatever they still wait for."""
    callers: list[Caller] = []
    if target.protocol == "grpc":
        async with grpc.aio.insecure_channel(target.address) as channel:
            stub = services.ChatCompletionServiceStub(channel)
            callers += [_GrpcCaller(stub, target.key) for _ in range(count)]
            yield callers
        return
    opened: list[_HttpCaller] = []
    try:
        host, _, port = target.address.rpartition(":")
        for _ in range(count):
            _, caller = await asyncio.get_running_loop().create_connection(
                lambda: _HttpCaller(target), host, int(port)
            )
            opened.append(caller)
        callers += opened
        yield callers
    finally:
        for caller in opened:
            caller.close()


class _HttpCaller(asyncio.Protocol):
    def __init__(self, target: Target) -> None:
        self.chunks = 0
        self._target = target
        self._encoded: dict[Request, bytes] = {}
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._begin(0)

    def _begin(self, chunks: int) -> None:
        self._received: list[bytes] = []
        self._size = 0
        self._needed: int | None = None  # bytes; none while unknown, and in parts
        self._parts = False
        self._tail = b""
        self._first = 0.0
        self._chunks_before = chunks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(UnexpectedError(f"closed: {self._text()}"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if chunks := data.count(_EVENT):
            self.chunks += chunks
            if not self._first:
                self._first = time.perf_counter()
        self._received.append(data)
        self._size += len(data)
        if self._parts:
            self._tail = (self._tail + data)[-len(_LAST_PART) :]
        elif self._needed is None:
            self._read_head()
        ended = self._tail == _LAST_PART or self._size == self._needed
        if ended and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read_head(self) -> None:
        received = b"".join(self._received)
        head, found, _ = received.partition(_HEAD_END)
        if not found:
            return
        _, length, rest = head.lower().partition(b"\r\ncontent-length:")
        if length:
            self._needed = len(head) + len(found) + int(rest.split(b"\r\n", 1)[0])
        else:
            self._parts = True
            self._tail = received[-len(_LAST_PART) :]

    async def ask(self, request: Request) -> Seen:
        if self._transport is None:
            raise UnexpectedError("the connection is closed")
        if (data := self._encoded.get(request)) is None:
            data = self._encoded[request] = _http(request, self._target)
        self._begin(self.chunks)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        await self._waiter
        ended = time.perf_counter()
        if not self._received[0].startswith(b"HTTP/1.1 200 "):
            raise UnexpectedError(self._text())
        if request.streamed and _DONE not in b"".join(self._received[-3:]):
            raise UnexpectedError(self._text())
        return Seen(self._first or ended, ended, self.chunks - self._chunks_before)

    def _text(self) -> str:
        return b"".join(self._received).decode(errors="replace")[-2000:]


def _http(request: Request, target: Target) -> bytes:
    document = {
        "model": request.model,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": request.prompt},
        ],
        "temperature": 0.7,
        "max_tokens": OUTPUT_LIMIT,
    }
    if request.streamed:
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(document, separators=(",", ":")).encode()
    fields = (
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {target.address}",
        "Content-Type: application/json",
        f"Authorization: Bearer {target.key}",
        "Accept: */*",
        "User-Agent: benchmark",
        f"Content-Length: {len(body)}",
        "",
        "",
    )
    return "\r\n".join(fields).encode() + body


class _GrpcCaller:
    def __init__(self, stub: services.ChatCompletionServiceAsyncStub, key: str) -> None:
        self.chunks = 0
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._params: dict[Request, ChatCompletionParams] = {}

    async def ask(self, request: Request) -> Seen:
        if (params := self._params.get(request)) is None:
            params = self._params[request] = _params(request)
        try:
            return await (self._stream(params) if request.streamed else self._create(params))
        except grpc.aio.AioRpcError as error:
            raise UnexpectedError(f"{error.code()}: {error.details()}") from error

    async def _create(self, params: ChatCompletionParams) -> Seen:
        await self._stub.CreateChatCompletion(
            messages.CreateChatCompletionRequest(params=params),
            metadata=self._metadata,
            timeout=_PATIENCE,
        )
        ended = time.perf_counter()
        return Seen(ended, ended, 0)

    async def _stream(self, params: ChatCompletionParams) -> Seen:
        first, before = 0.0, self.chunks
        async for _ in self._stub.StreamChatCompletion(
            messages.StreamChatCompletionRequest(params=params), metadata=self._metadata
        ):
            self.chunks += 1
            first = first or time.perf_counter()
        return Seen(first, time.perf_counter(), self.chunks - before)


def _params(request: Request) -> ChatCompletionParams:
    params = ChatCompletionParams(
        model=request.model,
        messages=[
            ChatMessage(role="system", content_text=SYSTEM),
            ChatMessage(role="user", content_text=request.prompt),
        ],
        temperature=0.7,
        max_tokens=OUTPUT_LIMIT,
    )
    if request.streamed:
        params.stream_options.include_usage = True
    return params

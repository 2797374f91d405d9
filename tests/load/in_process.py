"""The work of a call without sockets and threads: what instructions are counted of.

    JSON -> decode -> interceptor -> servicer -> ledger (SQLite) -> a canned upstream
    JSON <- encode <- interceptor <- servicer <- settlement

    echo 'stream-10 100' | python -m tests.load.in_process     100 streams of 10 tokens each

Every run executes the same steps: one thread, one call at a time, each chunk in a piece of its own,
and the transactions on the event loop. `instructions` runs it.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

import grpc
import httpx
import uvloop

from chatcompletion import openai_json
from chatcompletion.process import log
from chatcompletion.v1 import chat_completion_service_pb2 as messages
from service.call import Calls
from service.interceptors import CallInterceptor
from service.models import Catalogue
from service.servicer import ChatCompletionServicer
from service.upstream.client import Limits, UpstreamClient
from tests.unit.service.books import MODEL, Books, InPlace
from tests.unit.service.samples import (
    DONE,
    FakeContext,
    chunk,
    completion,
    event,
    usage_chunk,
)

_SERVICE: Final = "/chatcompletion.v1.ChatCompletionService/"
_LIMITS: Final = Limits(
    connect=5.0, first_byte=5.0, idle=5.0, longest_retry_after=0.0, max_response_bytes=2**20
)
_DOCUMENT: Final = {
    "model": MODEL.name,
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Tell me about the sea. " * 10},
    ],
    "temperature": 0.7,
}


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class _Canned(httpx.AsyncBaseTransport):
    """Answers every request alike."""

    def __init__(self, content_type: str, *pieces: bytes) -> None:
        self._headers = {"content-type": content_type}
        self._pieces = pieces

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=self._headers, stream=_Pieces(self._pieces))


class _Context(FakeContext):
    """Encodes what is written, as the bridge does."""

    async def write(self, message: Any) -> None:
        openai_json.encode_chunk(message.chunk)


def _servicer(books: Books, transport: httpx.AsyncBaseTransport) -> ChatCompletionServicer:
    upstream = UpstreamClient(
        transport,
        _LIMITS,
        books.telemetry,
        now=lambda: datetime.now(UTC),
        random=lambda: 0.0,
    )
    return ChatCompletionServicer(
        books.authentication,
        books.admission,
        Catalogue(models=MappingProxyType({MODEL.name: MODEL})),
        upstream,
        max_request_bytes=2**20,
        clock=time.monotonic,
    )


async def _wrapped(books: Books, method: str, handler: Any) -> Any:
    interceptor = CallInterceptor(
        Calls(10),
        books.telemetry,
        authenticate=books.authentication.authenticate,
        longest=60.0,
        clock=time.monotonic,
    )

    async def continuation(_: grpc.HandlerCallDetails) -> Any:
        return handler

    details: Any = SimpleNamespace(method=_SERVICE + method, invocation_metadata=())
    return await interceptor.intercept_service(continuation, details)


def _context(books: Books, request: Any) -> FakeContext:
    context = _Context(metadata=(("authorization", f"Bearer {books.key}"),))
    context.requests = [request]
    return context


async def unary(books: Books) -> Callable[[], Awaitable[None]]:
    """Return a function that makes a unary call."""
    document = json.dumps(completion()).encode()
    servicer = _servicer(books, _Canned("application/json", document))
    handler: Any = grpc.unary_unary_rpc_method_handler(servicer.CreateChatCompletion)
    wrapped = await _wrapped(books, "CreateChatCompletion", handler)
    body = json.dumps(_DOCUMENT).encode()

    async def call() -> None:
        params = openai_json.decode_request(body)
        request = messages.CreateChatCompletionRequest(params=params)
        context = _context(books, request)
        response = await wrapped.stream_unary(None, context)
        openai_json.encode_completion(response.completion)
        context.finish()

    return call


async def stream(books: Books, tokens: int) -> Callable[[], Awaitable[None]]:
    """Return a function that makes a streaming call of so many tokens, each a chunk."""
    pieces = [event(chunk(" capital")) for _ in range(tokens)]
    end = (event(chunk(None, "stop")), event(usage_chunk()) + DONE)
    servicer = _servicer(books, _Canned("text/event-stream", *pieces, *end))
    handler: Any = grpc.unary_stream_rpc_method_handler(servicer.StreamChatCompletion)
    wrapped = await _wrapped(books, "StreamChatCompletion", handler)
    body = json.dumps({**_DOCUMENT, "stream": True}).encode()

    async def call() -> None:
        params = openai_json.decode_request(body)
        request = messages.StreamChatCompletionRequest(params=params)
        context = _context(books, request)
        await wrapped.stream_stream(None, context)
        context.finish()

    return call


async def run(commands: Iterable[str]) -> None:
    """Do commands, each `unary CALLS` or `stream-TOKENS CALLS`, and print a line after each.

    Raises:
        SystemExit: a call failed.
    """
    with TemporaryDirectory() as directory:
        books = Books(Path(directory), InPlace)
        made = 0
        for command in commands:
            kind, calls = command.split()
            name, _, tokens = kind.partition("-")
            call = await (stream(books, int(tokens)) if name == "stream" else unary(books))
            for _ in range(int(calls)):
                await call()
            made += int(calls)
            if _successes(books) != made:
                raise SystemExit(f"{command}: a call failed")
            print("done", flush=True)
        await books.close()


def _successes(books: Books) -> float:
    return sum(
        sample.value
        for metric in books.telemetry.registry.collect()
        for sample in metric.samples
        if sample.name == "gen_ai_server_request_duration_seconds_count"
        and sample.labels["error_type"] == ""
    )


if __name__ == "__main__":
    log.configure("info")
    uvloop.run(run(sys.stdin))

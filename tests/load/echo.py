"""What gRPC alone costs: an echo with the options of the product, and none of its work.

    echo-grpc       gRPC -> python -m tests.load.echo service
    echo-rest+grpc  REST -> python -m tests.load.echo bridge -> python -m tests.load.echo service

The service sends prepared messages, of the sizes of those that the service of the product sends
for the responses of `tests.load.upstream`, without an upstream, a store or a log. It neither parses
requests nor sends metadata. Its handlers are those of `grpc.aio` that cost least: without
serializers and interceptors. The bridge passes the body of a request on as it is, reads messages
without parsing them, and writes a prepared event for each.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import uvloop

from chatcompletion import openai_json
from chatcompletion.v1 import chat_completion_service_pb2 as messages
from process import settings as process_settings
from restbridge.channel import Service
from restbridge.config import Settings
from service.config import load
from service.listeners import listener
from service.server import _options
from tests.load.upstream import COMPLETION, DOCUMENTS, PARTS, STREAM_HEAD, WHOLE, Connection

_SERVICE: Final = messages.DESCRIPTOR.services_by_name["ChatCompletionService"].full_name
_PACE: Final = re.compile(rb"paced-([0-9]+)")
_MODEL_WITHIN: Final = 64
"""Bytes of a request within which the name of its model is."""


def _completion() -> bytes:
    completion = openai_json.decode_completion(COMPLETION)
    return messages.CreateChatCompletionResponse(completion=completion).SerializeToString()


def _chunks() -> tuple[bytes, ...]:
    return tuple(
        messages.StreamChatCompletionResponse(
            chunk=openai_json.decode_chunk(document)
        ).SerializeToString()
        for document in DOCUMENTS
    )


async def service() -> None:
    """Serve the contract's two methods until the process is ended."""
    settings, _ = load(os.environ, simulates=False)
    completion, chunks = _completion(), _chunks()

    async def create(request: bytes, context: Any) -> bytes:
        return completion

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        pace = _PACE.search(request, 0, _MODEL_WITHIN)
        gap = int(pace[1]) / 1e3 if pace else 0.0
        loop = asyncio.get_running_loop()
        due = loop.time()
        for chunk in chunks:
            yield chunk
            if gap:
                due += gap
                await asyncio.sleep(due - loop.time())

    server = listener((), _options(settings, shares_port=False))
    unary: Any = grpc.unary_unary_rpc_method_handler(create)
    streaming: Any = grpc.unary_stream_rpc_method_handler(stream)
    server.add_registered_method_handlers(
        _SERVICE, {"CreateChatCompletion": unary, "StreamChatCompletion": streaming}
    )
    server.add_insecure_port(os.environ["CHAT_LISTEN"])
    await server.start()
    await server.wait_for_termination()


class _Forwarding(Connection):
    """A connection whose requests are answered by the service."""

    def __init__(self, create: Any, stream: Any) -> None:
        super().__init__()
        self._create = create
        self._stream = stream
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, body: bytes, *, streamed: bool) -> None:
        task = self.loop.create_task(self._streamed(body) if streamed else self._created(body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _created(self, body: bytes) -> None:
        await self._create(body, timeout=600.0)
        self.write(WHOLE)

    async def _streamed(self, body: bytes) -> None:
        call = self._stream(body, timeout=600.0)
        parts = iter(PARTS)
        self.write(STREAM_HEAD)
        while await call.read() is not grpc.aio.EOF:
            self.write(next(parts))


async def bridge() -> None:
    """Serve REST until the process is ended."""
    values, _ = process_settings.parse(Settings, os.environ)
    settings = Settings(**values)
    channel: Any = Service(settings).stubs().channel
    create = channel.unary_unary(f"/{_SERVICE}/CreateChatCompletion")
    stream = channel.unary_stream(f"/{_SERVICE}/StreamChatCompletion")
    host, _, port = os.environ["CHAT_BRIDGE_LISTEN"].rpartition(":")
    server = await asyncio.get_running_loop().create_server(
        lambda: _Forwarding(create, stream), host, int(port), backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run({"service": service, "bridge": bridge}[sys.argv[1]]())

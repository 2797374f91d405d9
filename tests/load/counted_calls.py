"""The work of a call without sockets and threads: what instructions are counted of.

    JSON -> decode -> stub -> interceptor -> servicer -> ledger (SQLite) -> a canned upstream
    JSON <- encode <- stub <- interceptor <- servicer <- settlement

    echo 'stream-10 100' | python -m tests.load.counted_calls     100 streams of 10 tokens each

Every run executes the same steps: one thread, one call at a time through the channel in the
process, each chunk in a piece of its own, and the transactions on the event loop.
"""

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final

import grpc
import httpx
import uvloop

from chatcompletion import openai_json
from chatcompletion.v1 import chat_completion_service_pb2 as messages
from chatcompletion.v1 import chat_completion_service_pb2_grpc as services
from process import log
from process.in_process import InProcessChannel, each
from restbridge.chat_completions import encoded
from service.accounts.bootstrap import bootstrap
from service.accounts.directory import Directory
from service.accounts.store_access import Access
from service.admission import Admission
from service.authentication import Authentication
from service.call import Calls
from service.interceptors import CallInterceptor
from service.ledger.batches import PATIENCE
from service.ledger.journal import Journal
from service.ledger.migrations import migrate
from service.ledger.store import Store
from service.models import Catalogue
from service.quotes import Quotes
from service.servicer import ChatCompletionServicer
from service.settlement import Settlement
from service.telemetry import Telemetry
from service.upstream.client import UpstreamClient
from service.upstream.client_limits import UpstreamLimits
from tests.support.in_place import InPlace
from tests.support.samples import (
    CALLER_KEY,
    DONE,
    chunk,
    completion,
    event,
    model,
    usage_chunk,
)

MODEL: Final = model(input_price=50_000_000, output_price=100_000_000)
REQUEST: Final = {
    "model": MODEL.name,
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Tell me about the sea. " * 10},
    ],
    "temperature": 0.7,
}

_LIMITS: Final = UpstreamLimits(
    connect=5.0, first_byte=5.0, idle=5.0, longest_retry_after=0.0, max_response_bytes=2**20
)
_SERVICE: Final = messages.DESCRIPTOR.services_by_name["ChatCompletionService"].full_name
_CALLS: Final = "gen_ai_server_request_duration_seconds_count"


class Canned(httpx.AsyncBaseTransport):
    """Answers every request with the same pieces.

    Attributes:
        content_type: The media type of the responses.
        pieces: Their body.
    """

    def __init__(self) -> None:
        self.content_type = "application/json"
        self.pieces: Sequence[bytes] = ()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {"content-type": self.content_type}
        return httpx.Response(200, headers=headers, stream=_Pieces(self.pieces))


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class Stack:
    """A service on a store in a directory, as far as a call passes it.

    Args:
        directory: Where the store is.
        resources: Closes what it opens.
    """

    def __init__(self, directory: Path, resources: AsyncExitStack) -> None:
        self.upstream = Canned()
        self._telemetry = Telemetry()
        store = Store(f"sqlite:///{directory / 'accounts.db'}")
        resources.callback(store.close)
        migrate(store)
        bootstrap(store, CALLER_KEY, Decimal(1_000_000))
        batches = InPlace(store)
        resources.push_async_callback(batches.close)
        journal = Journal(str(directory / "journal"))
        resources.callback(journal.close)
        settlement = Settlement(batches, journal, self._telemetry, patience=PATIENCE)
        resources.push_async_callback(settlement.settled)
        authentication = Authentication(
            batches, Directory(store), patience=PATIENCE, clock=time.monotonic
        )
        servicer = ChatCompletionServicer(
            authentication,
            Admission(batches, settlement, owner="benchmark", patience=PATIENCE),
            Catalogue(models=MappingProxyType({MODEL.name: MODEL})),
            UpstreamClient(
                self.upstream,
                _LIMITS,
                self._telemetry,
                now=lambda: datetime.now(UTC),
                random=lambda: 0.0,
            ),
            quotes=Quotes(Access(batches), store),
            max_request_bytes=2**20,
            clock=time.monotonic,
        )
        interceptor = CallInterceptor(
            Calls(10),
            self._telemetry,
            authenticate=authentication.authenticate,
            longest=60.0,
            clock=time.monotonic,
        )
        unary: Any = grpc.unary_unary_rpc_method_handler(servicer.CreateChatCompletion)
        streaming: Any = grpc.unary_stream_rpc_method_handler(servicer.StreamChatCompletion)
        handlers = {
            f"/{_SERVICE}/CreateChatCompletion": unary,
            f"/{_SERVICE}/StreamChatCompletion": streaming,
        }
        channel: Any = InProcessChannel([interceptor], handlers)
        self._stub = services.ChatCompletionServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {CALLER_KEY}"),)

    @property
    def successes(self) -> float:
        """How many calls succeeded."""
        return sum(
            sample.value
            for metric in self._telemetry.registry.collect()
            for sample in metric.samples
            if sample.name == _CALLS and sample.labels["error_type"] == ""
        )

    def unary(self) -> Callable[[], Awaitable[None]]:
        """Return a function that makes a unary call."""
        self.upstream.content_type = "application/json"
        self.upstream.pieces = (json.dumps(completion()).encode(),)
        body = json.dumps(REQUEST).encode()

        async def call() -> None:
            params = openai_json.decode_request(body)
            request = messages.CreateChatCompletionRequest(params=params)
            response: Any = await self._call(self._stub.CreateChatCompletion, request)
            openai_json.encode_completion(response.completion)

        return call

    def stream(self, tokens: int) -> Callable[[], Awaitable[None]]:
        """Return a function that makes a streaming call of so many tokens, each a chunk."""
        self.upstream.content_type = "text/event-stream"
        self.upstream.pieces = (
            *(event(chunk(" capital")) for _ in range(tokens)),
            event(chunk(None, "stop")),
            event(usage_chunk()) + DONE,
        )
        body = json.dumps({**REQUEST, "stream": True}).encode()

        async def call() -> None:
            params = openai_json.decode_request(body)
            request = messages.StreamChatCompletionRequest(params=params)
            await each(self._call(self._stub.StreamChatCompletion, request), _encode)

        return call

    def _call(self, method: Any, request: object) -> Any:
        return method(request, metadata=self._metadata, timeout=60.0)


async def _encode(responses: Sequence[messages.StreamChatCompletionResponse]) -> None:
    for response in responses:
        encoded(response)


async def run(commands: Iterable[str]) -> None:
    """Do commands, each `unary CALLS` or `stream-TOKENS CALLS`, and print a line after each.

    Raises:
        SystemExit: a call failed.
    """
    with TemporaryDirectory() as directory:
        async with AsyncExitStack() as resources:
            stack = Stack(Path(directory), resources)
            made = 0
            for command in commands:
                kind, calls = command.split()
                name, _, tokens = kind.partition("-")
                call = stack.stream(int(tokens)) if name == "stream" else stack.unary()
                for _ in range(int(calls)):
                    await call()
                made += int(calls)
                if stack.successes != made:
                    raise SystemExit(f"{command.strip()}: a call failed")
                print("done", flush=True)


if __name__ == "__main__":
    log.configure("info")
    uvloop.run(run(sys.stdin))

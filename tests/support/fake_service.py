"""A gRPC server whose answers are functions that a test gives, and a bridge in front of it.

async with bridged() as pair:
    pair.service.create = refuse("RATE_LIMITED")
    response = await pair.http.post("/v1/chat/completions", json=…)

async with pair.connect() as raw:                  a socket, for what no client library sends
    answer = await raw.ask(b"GET /healthz HTTP/1.1\\r\\n…")
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import grpc
import httpx
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chatcompletion import openai_json
from chatcompletion.process import settings as process_settings
from chatcompletion.reasons import DOMAIN, RULES
from chatcompletion.v1 import chat_completion_service_pb2_grpc, model_service_pb2_grpc
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
    StreamChatCompletionRequest,
    StreamChatCompletionResponse,
)
from chatcompletion.v1.error_pb2 import ErrorDetail
from chatcompletion.v1.model_service_pb2 import (
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
    Model,
)
from restbridge.config import Settings
from restbridge.http.limits import Limits
from restbridge.server import Bridge, limits_of

PATIENCE: Final = 20.0
"""Seconds after which a test has failed rather than waits on."""

PATH: Final = "/v1/chat/completions"
REQUEST: Final[Mapping[str, Any]] = {
    "model": "any",
    "messages": [{"role": "user", "content": "hi"}],
}
STREAMED: Final[Mapping[str, Any]] = {**REQUEST, "stream": True}

Context = Any  # grpc.aio.ServicerContext, whose types differ between stubs and server
Create = Callable[[ChatCompletionParams, Context], Awaitable[ChatCompletion]]
Stream = Callable[[ChatCompletionParams, Context], AsyncIterator[ChatCompletionChunk]]


# ------------------------------------------------------------------------------------ what it says


def completion(**members: Any) -> ChatCompletion:
    """Make a completion, from members of OpenAI's JSON."""
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "any",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        **members,
    }
    return openai_json.decode_completion(json.dumps(document).encode())


def chunk(content: str = "", finish_reason: str | None = None) -> ChatCompletionChunk:
    """Make a chunk with some content."""
    choice = {
        "index": 0,
        "delta": {"content": content, "refusal": None},
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "any",
        "system_fingerprint": "fp",
        "choices": [choice],
        "usage": None,
    }
    return openai_json.decode_chunk(json.dumps(document).encode())


def status_of(
    reason: str,
    *,
    message: str = "",
    param: str | None = None,
    retryable: bool | None = None,
    retry_delay: float | None = None,
) -> bytes:
    """Make what a failed call has in `grpc-status-details-bin`, as the contract describes it."""
    rule = RULES[reason]
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    info.metadata["retryable"] = str(rule.retryable if retryable is None else retryable).lower()
    detail = ErrorDetail(http_status=rule.http_status)
    detail.error.message = message or f"Told by the service: {reason}."
    detail.error.type, detail.error.code_text = rule.type, rule.code
    if param is not None:
        detail.error.param = param
    details: list[Message] = [info, detail]
    if retry_delay is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_delay * 1e9))
        details.append(retry)
    status = status_pb2.Status(code=rule.grpc_code.value[0], message=detail.error.message)
    for item in details:
        packed = AnyMessage()
        packed.Pack(item)
        status.details.append(packed)
    packed_status: bytes = status.SerializeToString()
    return packed_status


async def fail(context: Context, reason: str, **members: Any) -> NoReturn:
    """End a call with a reason of the contract."""
    await context.abort(
        RULES[reason].grpc_code,
        "told",
        (("grpc-status-details-bin", status_of(reason, **members)),),
    )
    raise AssertionError("abort raises")


def refusing(reason: str, **members: Any) -> tuple[Create, Stream]:
    """Make handlers that fail before they say anything."""

    async def create(params: ChatCompletionParams, context: Context) -> ChatCompletion:
        await fail(context, reason, **members)

    async def stream(
        params: ChatCompletionParams, context: Context
    ) -> AsyncIterator[ChatCompletionChunk]:
        await fail(context, reason, **members)
        yield ChatCompletionChunk()

    return create, stream


def saying(*contents: str) -> Stream:
    """Make a handler that streams these contents and ends well."""

    async def stream(
        params: ChatCompletionParams, context: Context
    ) -> AsyncIterator[ChatCompletionChunk]:
        for content in contents:
            yield chunk(content)
        yield chunk(finish_reason="stop")

    return stream


# --------------------------------------------------------------------------------------- the server


async def _completes(params: ChatCompletionParams, context: Context) -> ChatCompletion:
    return completion()


@dataclass(kw_only=True, slots=True, eq=False)
class FakeService:
    """What the server answers, and what it was asked."""

    create: Create = _completes
    stream: Stream = field(default_factory=lambda: saying("Hel", "lo"))
    models: tuple[str, ...] = ("any", "org/model:tag")
    asked: list[ChatCompletionParams] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    """The metadata of each call."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """A call of the completions arrived."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """A call of the completions was cancelled by its caller."""
    health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer)
    address: str = ""
    server: Any = None  # grpc.aio.Server, once it runs

    async def stop(self) -> None:
        """End the server and every call."""
        await self.server.stop(None)

    def note(self, context: Context) -> None:
        """Keep a call's metadata."""
        self.metadata.append(dict(context.invocation_metadata()))

    @asynccontextmanager
    async def watched(self, params: ChatCompletionParams, context: Context) -> AsyncIterator[None]:
        """Keep a call, and tell if it is cancelled."""
        self.note(context)
        self.asked.append(params)
        self.begun.set()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def serving(self, status: int = health_pb2.HealthCheckResponse.SERVING) -> None:
        """Say whether it is ready."""
        await self.health.set("chatcompletion.v1.ChatCompletionService", status)


class _Completions(chat_completion_service_pb2_grpc.ChatCompletionServiceServicer):
    def __init__(self, fake: FakeService) -> None:
        self._fake = fake

    async def CreateChatCompletion(  # noqa: N802 - the name in the contract
        self, request: CreateChatCompletionRequest, context: Context
    ) -> CreateChatCompletionResponse:
        async with self._fake.watched(request.params, context):
            answer = await self._fake.create(request.params, context)
            return CreateChatCompletionResponse(completion=answer)

    async def StreamChatCompletion(  # noqa: N802 - as above
        self, request: StreamChatCompletionRequest, context: Context
    ) -> AsyncIterator[StreamChatCompletionResponse]:
        async with self._fake.watched(request.params, context):
            async for part in self._fake.stream(request.params, context):
                yield StreamChatCompletionResponse(chunk=part)


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, fake: FakeService) -> None:
        self._fake = fake

    async def ListModels(  # noqa: N802 - as above
        self, request: ListModelsRequest, context: Context
    ) -> ListModelsResponse:
        self._fake.note(context)
        return ListModelsResponse(object="list", data=map(_model, self._fake.models))

    async def GetModel(  # noqa: N802 - as above
        self, request: GetModelRequest, context: Context
    ) -> GetModelResponse:
        self._fake.note(context)
        if request.model not in self._fake.models:
            await fail(context, "MODEL_NOT_FOUND", message=f"No {request.model!r}.", param="model")
        return GetModelResponse(model=_model(request.model))


def _model(name: str) -> Model:
    return Model(id=name, object="model", created=1, owned_by="us")


@asynccontextmanager
async def serve(
    fake: FakeService,
    options: Iterable[tuple[str, Any]] = (),
    *,
    address: str = "127.0.0.1:0",
) -> AsyncIterator[None]:
    """Run the server, on a free port where the address does not name one."""
    server = grpc.aio.server(options=tuple(options))
    chat_completion_service_pb2_grpc.add_ChatCompletionServiceServicer_to_server(
        _Completions(fake), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(fake), server)
    health_pb2_grpc.add_HealthServicer_to_server(fake.health, server)
    port = server.add_insecure_port(address)
    fake.address = f"127.0.0.1:{port}" if address.endswith(":0") else address
    await fake.serving()
    await server.start()
    fake.server = server
    try:
        yield
    finally:
        await server.stop(0)


# --------------------------------------------------------------------------------------- the bridge


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back on a raw connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The OpenAI error object of the body, which is nothing else."""
        document = json.loads(self.body)
        assert list(document) == ["error"]
        assert set(document["error"]) >= {"message", "type", "param", "code"}
        error: dict[str, Any] = document["error"]
        return error


class Raw:
    """A connection, for what no client library sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send some bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """Read one answer with a length."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status=int(status.split(" ")[1]), headers=headers, body=body)

    async def ask(self, data: bytes) -> Answer:
        """Send some bytes and read one answer."""
        await self.send(data)
        return await self.answer()

    async def end(self) -> bytes:
        """Read until the other side closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A bridge, the service behind it, and a client in front."""

    service: FakeService
    bridge: Bridge
    http: httpx.AsyncClient

    @asynccontextmanager
    async def connect(self, limit: int = 2**20) -> AsyncIterator[Raw]:
        """Open a raw connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.bridge.port, limit=limit)
        try:
            yield Raw(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def works(self) -> None:
        """Assert that a usual request is answered."""
        response = await self.http.post(PATH, json=REQUEST)
        assert response.status_code == 200
        assert response.json()["object"] == "chat.completion"

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the bridge's metrics, 0 where there is none yet."""
        return self.bridge.telemetry.registry.get_sample_value(name, labels) or 0.0


def settings(target: str, **variables: str) -> Settings:
    """Make settings for tests: free local ports, and no delay in a drain."""
    return process_settings.read(
        Settings,
        {
            "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
            "CHAT_BRIDGE_DRAIN_DELAY": "0",
            "CHAT_SERVICE_TARGET": target,
            **variables,
        },
    )


@asynccontextmanager
async def bridge_to(
    fake: FakeService,
    *,
    silence: float = 15.0,
    change: Callable[[Limits], Limits] = lambda limits: limits,
    **variables: str,
) -> AsyncIterator[Pair]:
    """Run a bridge to a service, with a client of it."""
    chosen = settings(fake.address, **variables)
    bridge = Bridge(chosen, limits=change(limits_of(chosen)), silence=silence)
    await bridge.start()
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{bridge.address}",
            timeout=PATIENCE,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        ) as http:
            yield Pair(service=fake, bridge=bridge, http=http)
    finally:
        await bridge.stop(delay=0, grace=0)


@asynccontextmanager
async def bridged(
    *, options: Iterable[tuple[str, Any]] = (), **arguments: Any
) -> AsyncIterator[Pair]:
    """Run a fake service and a bridge to it; the arguments are those of `bridge_to`."""
    fake = FakeService()
    async with serve(fake, options), bridge_to(fake, **arguments) as pair:
        yield pair


async def wait(event: asyncio.Event) -> None:
    """Wait for an event, or fail."""
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def broken(parts: AsyncIterator[bytes]) -> bytes:
    """Read the rest of a body, which must end without its last chunk."""
    body = bytearray()

    async def read() -> None:
        async for part in parts:
            body.extend(part)

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        await read()
    return bytes(body)


def events(body: bytes) -> list[str]:
    """Split a stream of events into what each says; asserts the framing."""
    assert body.endswith(b"\n\n")
    parts = body.decode().split("\n\n")[:-1]
    assert all(part.startswith("data: ") or part == ": keep-alive" for part in parts)
    assert all("\n" not in part and "\r" not in part for part in parts)
    return [part.removeprefix("data: ") for part in parts]


def contents(said: Iterable[str]) -> str:
    """Join the contents of the chunks among these events."""
    documents = [json.loads(part) for part in said if part.startswith("{")]
    return "".join(
        document["choices"][0]["delta"]["content"]
        for document in documents
        if "choices" in document
    )

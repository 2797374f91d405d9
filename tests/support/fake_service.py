"""A gRPC server whose handlers are functions of a test.

fake = FakeService(create=refusing("RATE_LIMITED")[0])
async with serve(fake):
    ...                     fake.address; fake.asked has the requests
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chatcompletion import openai_json
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
    QuoteChatCompletionRequest,
    QuoteChatCompletionResponse,
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

Context = Any  # grpc.aio.ServicerContext, whose types differ between stubs and server
Create = Callable[[ChatCompletionParams, Context], Awaitable[ChatCompletion]]
Stream = Callable[[ChatCompletionParams, Context], AsyncIterator[ChatCompletionChunk]]


# ---------------------------------------------------------------------------------- its responses


def completion(**members: Any) -> ChatCompletion:
    """Return a completion with members of OpenAI's JSON."""
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
    """Return a chunk with some content."""
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
    """Return the `grpc-status-details-bin` of a failed call, as the contract defines it."""
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
    """Return handlers that fail immediately."""

    async def create(params: ChatCompletionParams, context: Context) -> ChatCompletion:
        await fail(context, reason, **members)

    async def stream(
        params: ChatCompletionParams, context: Context
    ) -> AsyncIterator[ChatCompletionChunk]:
        await fail(context, reason, **members)
        yield ChatCompletionChunk()

    return create, stream


def saying(*contents: str) -> Stream:
    """Return a handler that streams these contents and succeeds."""

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
    """The handlers of the server, and the requests that it received."""

    create: Create = _completes
    stream: Stream = field(default_factory=lambda: saying("Hel", "lo"))
    models: tuple[str, ...] = ("any", "org/model:tag")
    asked: list[ChatCompletionParams] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    """The metadata of each call."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a completion call has arrived."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a caller has cancelled a completion call."""
    health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer)
    address: str = ""
    server: Any = None  # a grpc.aio.Server, set when it runs

    async def stop(self) -> None:
        """End the server and every call."""
        await self.server.stop(None)

    def note(self, context: Context) -> None:
        """Record the metadata of a call."""
        self.metadata.append(dict(context.invocation_metadata()))

    @asynccontextmanager
    async def watched(self, params: ChatCompletionParams, context: Context) -> AsyncIterator[None]:
        """Record a call, and whether it is cancelled."""
        self.note(context)
        self.asked.append(params)
        self.begun.set()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def serving(self, status: int = health_pb2.HealthCheckResponse.SERVING) -> None:
        """Set the health."""
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

    async def QuoteChatCompletion(  # noqa: N802 - as above
        self, request: QuoteChatCompletionRequest, context: Context
    ) -> QuoteChatCompletionResponse:
        self._fake.note(context)
        return QuoteChatCompletionResponse(model=request.params.model, prompt_tokens=1)


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
    """Run the server; with port 0, on a free port."""
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

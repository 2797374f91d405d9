"""A caller over gRPC, with a key: unary calls, streams, and their failures.

async with client(address) as caller:
    completion = await caller.create("any")
    streamed = await caller.collect("any")     chunks, and the failure if there was one
    failure = await caller.refusal("sim-fault:500")     Failed(code, reason, ...)
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chatcompletion import openai_json
from chatcompletion.v1 import error_pb2
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
    StreamChatCompletionResponse,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from chatcompletion.v1.model_service_pb2_grpc import ModelServiceStub
from tests.support import canaries
from tests.support.waiting import PATIENCE

KEY: Final = canaries.secret("sk-test-0123456789abcdef")
"""The key that services in the tests accept, and that `Client` sends."""

Metadata = Sequence[tuple[str, str | bytes]]

_DETAILS: Final[tuple[type[Message], ...]] = (
    error_pb2.ErrorDetail,
    error_details_pb2.BadRequest,
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
)


# ---------------------------------------------------------------------------------------- results


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The status of a failed call. Attributes that the status lacks are empty."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    http_status: int = 0
    retryable: bool = False
    error: error_pb2.ApiError = field(default_factory=error_pb2.ApiError)
    """The OpenAI error object."""
    violations: tuple[str, ...] = ()
    """The paths in google.rpc.BadRequest."""
    retry_delay: float | None = None
    """The seconds in google.rpc.RetryInfo."""
    trailers: Mapping[str, str | bytes] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether the trailers stop clients and meshes from retrying."""
        return self.trailers.get("grpc-retry-pushback-ms") == "-1"


def failed(error: grpc.aio.AioRpcError) -> Failed:
    """Return the status of a failed call."""
    trailers = dict(error.trailing_metadata() or ())
    canaries.search("a status", f"{error.details()} {trailers}", quotes_prompts=True)
    status = status_pb2.Status()
    packed = trailers.get("grpc-status-details-bin", b"")
    status.ParseFromString(packed if isinstance(packed, bytes) else packed.encode())
    found: dict[type[Message], Any] = {kind: kind() for kind in _DETAILS}
    for detail in status.details:
        for kind, message in found.items():
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(message)
    info = found[error_details_pb2.ErrorInfo]
    retry = found[error_details_pb2.RetryInfo]
    return Failed(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        http_status=found[error_pb2.ErrorDetail].http_status,
        retryable=info.metadata.get("retryable") == "true",
        error=found[error_pb2.ErrorDetail].error,
        violations=tuple(v.field for v in found[error_details_pb2.BadRequest].field_violations),
        retry_delay=(
            retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None
        ),
        trailers=trailers,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """A streamed call that has ended."""

    chunks: tuple[ChatCompletionChunk, ...]
    failure: Failed | None
    """The failure; None for success."""
    initial_metadata: Mapping[str, str | bytes]

    @property
    def text(self) -> str:
        """The content of choice 0."""
        return "".join(
            choice.delta.content_text
            for chunk in self.chunks
            for choice in chunk.choices
            if choice.index == 0
        )


# ------------------------------------------------------------------------------------- the client


def params(model: str, **members: Any) -> ChatCompletionParams:
    """Return parameters with members of OpenAI's JSON; by default, one user message."""
    document = {"model": model, "messages": [{"role": "user", "content": "hi"}], **members}
    canaries.prompts(
        message.get("content") for message in document["messages"] if isinstance(message, dict)
    )
    return openai_json.decode_request(json.dumps(document).encode())


Request = str | ChatCompletionParams
"""The name of a model, or all parameters."""


class Client:
    """A caller with a key. Deadlines are in seconds from now; None sets no deadline.

    Args:
        channel: A channel to a service.
        key: The API key; None sends none.
    """

    def __init__(self, channel: grpc.aio.Channel, key: str | None = KEY) -> None:
        self.channel = channel
        self.metadata: Metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        self.chat = ChatCompletionServiceStub(channel)
        self.models = ModelServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)  # its types have no methods

    def start_create(
        self, request: Request, *, deadline: float | None = PATIENCE, metadata: Metadata = ()
    ) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        """Begin a unary call."""
        return self.chat.CreateChatCompletion(
            CreateChatCompletionRequest(params=_params(request)),
            timeout=deadline,
            metadata=(*self.metadata, *metadata),
        )

    def start_stream(
        self, request: Request, *, deadline: float | None = PATIENCE, metadata: Metadata = ()
    ) -> grpc.aio.UnaryStreamCall[Any, StreamChatCompletionResponse]:
        """Begin a streamed call."""
        return self.chat.StreamChatCompletion(
            StreamChatCompletionRequest(params=_params(request)),
            timeout=deadline,
            metadata=(*self.metadata, *metadata),
        )

    async def create(
        self, request: Request, *, deadline: float | None = PATIENCE, metadata: Metadata = ()
    ) -> ChatCompletion:
        """Return the completion.

        Raises:
            grpc.aio.AioRpcError: The call failed.
        """
        response = await self.start_create(request, deadline=deadline, metadata=metadata)
        completion: ChatCompletion = response.completion
        return completion

    async def collect(
        self, request: Request, *, deadline: float | None = PATIENCE, metadata: Metadata = ()
    ) -> Streamed:
        """Read a stream until it succeeds or fails."""
        call = self.start_stream(request, deadline=deadline, metadata=metadata)
        chunks: list[ChatCompletionChunk] = []
        failure: Failed | None = None
        try:
            async for response in call:
                chunks.append(response.chunk)  # noqa: PERF401  (kept when the call fails)
        except grpc.aio.AioRpcError as error:
            failure = failed(error)
        return Streamed(
            chunks=tuple(chunks),
            failure=failure,
            initial_metadata=dict(await call.initial_metadata() or ()),
        )

    async def refusal(
        self,
        request: Request,
        *,
        streamed: bool = False,
        deadline: float | None = PATIENCE,
        metadata: Metadata = (),
    ) -> Failed:
        """Make a call that must fail before the first chunk, and return its failure."""
        if streamed:
            result = await self.collect(request, deadline=deadline, metadata=metadata)
            assert result.failure is not None
            assert result.chunks == ()
            return result.failure
        try:
            await self.create(request, deadline=deadline, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return failed(error)
        raise AssertionError("the call succeeded")


def _params(request: Request) -> ChatCompletionParams:
    return params(request) if isinstance(request, str) else request


@asynccontextmanager
async def client(
    address: str, *, key: str | None = KEY, options: Sequence[tuple[str, Any]] = ()
) -> AsyncIterator[Client]:
    """Dial a service and hang up at the end.

    The channel does not share its connection with equal channels, as gRPC does by default.
    """
    usual = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    async with grpc.aio.insecure_channel(address, options=(*usual, *options)) as channel:
        yield Client(channel, key)


async def serving(caller: Client, name: str = "") -> None:
    """Watch the health of a service until it is SERVING.

    Raises:
        TimeoutError: It is not within `PATIENCE`.
    """
    await watched(caller, health_pb2.HealthCheckResponse.SERVING, name)


async def watched(caller: Client, status: int, name: str = "") -> None:
    """Watch the health of a service until it has a status.

    Raises:
        TimeoutError: It does not within `PATIENCE`.
    """
    async with asyncio.timeout(PATIENCE):
        watch = caller.health.Watch(
            health_pb2.HealthCheckRequest(service=name), wait_for_ready=True
        )
        try:
            async for response in watch:
                if response.status == status:
                    return
        finally:
            watch.cancel()
    raise AssertionError(f"the watch ended without {status}")

"""Calls over gRPC or REST, with the same form of `Answer` from both.

await ask_grpc(channel, key, document("default"), streamed=True)
await ask_rest(web, key, document("default"), streamed=True)
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import grpc
import httpx

from chatcompletion import charges, openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
    Usage,
)
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from tests.support.grpc_client import failed
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE

HELLO: Final[list[dict[str, Any]]] = [{"role": "user", "content": "Hello"}]

DoorName = Literal["grpc", "rest", "standalone"]
"""The last one is REST too, through a bridge in the service's process."""
DOORS: Final[tuple[DoorName, ...]] = ("grpc", "rest", "standalone")


def document(model: str, **members: Any) -> dict[str, Any]:
    """Return a request with one message."""
    return {"model": model, "messages": HELLO, **members}


def params(request: Mapping[str, Any]) -> ChatCompletionParams:
    """Return a request as a message of the contract."""
    return openai_json.decode_request(json.dumps(request).encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The result of a call, in the same form over gRPC and REST."""

    status: int
    """The HTTP status, also over gRPC; 200 for a stream that failed after it began."""
    code: str = ""
    """The code of the error object; "" for success."""
    message: str = ""
    retryable: bool | None = None
    retry_after_ms: int | None = None
    pieces: int = 0
    """The pieces of content that arrived."""
    message_bytes: int = 0
    """The size of the messages of a unary completion, as messages of the contract."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The response headers, or the initial and trailing metadata."""
    charge: str = ""
    """The receipt as the header `x-charge` has it, wherever the answer has it; "" for none."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """The member `usage` of a unary response or of the last chunk that has one."""
    error: Mapping[str, Any] | bytes = b""
    """The details of a failure, without the request id."""


async def ask_grpc(
    channel: grpc.aio.Channel,
    key: str,
    request: Mapping[str, Any],
    *,
    streamed: bool,
    deadline: float = PATIENCE,
    leave_after: int | None = None,
    watch: Callable[[int], None] | None = None,
) -> Answer:
    """Make a call over gRPC.

    Args:
        channel: A channel to the service.
        key: The caller's API key.
        request: The request.
        streamed: Whether to request a stream.
        deadline: The deadline in seconds.
        leave_after: The number of pieces of content after which the caller cancels.
        watch: Called after each message with the number of messages.
    """
    stub = ChatCompletionServiceStub(channel)
    options: dict[str, Any] = {
        "metadata": (("authorization", f"Bearer {key}"),),
        "timeout": deadline,
    }
    wanted = params(request)
    call: Any
    pieces, size, usage, charge = 0, 0, Usage(), ""
    try:
        if streamed:
            call = stub.StreamChatCompletion(StreamChatCompletionRequest(params=wanted), **options)
            async for response in call:
                pieces += sum(bool(c.delta.content_text) for c in response.chunk.choices)
                if response.chunk.HasField("usage"):
                    usage = response.chunk.usage
                assert not charge
                charge = charges.text(response.charge) if response.HasField("charge") else ""
                if watch is not None:
                    watch(pieces)
                if pieces == leave_after:
                    break
            if leave_after is not None:
                call.cancel()
        else:
            call = stub.CreateChatCompletion(CreateChatCompletionRequest(params=wanted), **options)
            response = await call
            size, usage = _size(response.completion), response.completion.usage
            charge = charges.text(response.charge) if response.HasField("charge") else ""
        told = _charge(await call.trailing_metadata()) if leave_after is None else ""
        assert charge in ("", told)
        metadata = _texts(await call.initial_metadata())
    except grpc.aio.AioRpcError as error:
        return replace(_failed(error), pieces=pieces)
    return Answer(
        status=200,
        pieces=pieces,
        message_bytes=size,
        headers=metadata,
        charge=told,
        usage=_members(usage),
    )


async def ask_rest(
    web: httpx.AsyncClient,
    key: str,
    request: Mapping[str, Any],
    *,
    streamed: bool,
    leave_after: int | None = None,
) -> Answer:
    """Make a call over REST.

    Args:
        web: A client of the bridge.
        key: The caller's API key.
        request: The request.
        streamed: Whether to request a stream.
        leave_after: The number of pieces of content after which the caller disconnects.
    """
    body = {**request, "stream": True} if streamed else dict(request)
    headers = {"authorization": f"Bearer {key}"}
    async with web.stream("POST", PATH, json=body, headers=headers) as response:
        if response.status_code != 200:
            told = json.loads(await response.aread())["error"]
            return _rest_failure(response, told)
        if not streamed:
            completion = openai_json.decode_completion(await response.aread())
            return Answer(
                status=200,
                message_bytes=_size(completion),
                headers=dict(response.headers),
                charge=response.headers.get("x-charge", ""),
                usage=_members(completion.usage),
            )
        pieces, charge = 0, ""
        usage: Mapping[str, Any] = {}
        failure: Answer | None = None
        async for line in _lines(response):
            if line.startswith(": charge "):
                charge = line.removeprefix(": charge ")
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                failure = _rest_failure(response, event["error"])
                continue
            usage = event.get("usage") or usage
            pieces += sum(bool(c["delta"].get("content")) for c in event["choices"])
            if pieces == leave_after:
                break
        if failure is not None:
            return replace(failure, pieces=pieces, charge=charge, usage=usage)
        return Answer(
            status=200,
            pieces=pieces,
            headers=dict(response.headers),
            charge=charge,
            usage=usage,
        )


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Yield the lines of a stream. After an error, the bridge cuts the connection."""
    failed = False
    try:
        async for line in response.aiter_lines():
            yield line
            failed = failed or line.startswith('data: {"error"')
    except httpx.RemoteProtocolError:
        if not failed:
            raise


def _size(completion: ChatCompletion) -> int:
    return sum(choice.message.ByteSize() for choice in completion.choices)


def _members(usage: Usage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openai_json.encode_chunk(ChatCompletionChunk(usage=usage)))
    return dict(found["usage"])


def _charge(trailers: Any) -> str:
    charge = charges.of(trailers)
    return "" if charge is None else charges.text(charge)


def _texts(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _failed(error: grpc.aio.AioRpcError) -> Answer:
    found = failed(error)
    packed = found.trailers.get("grpc-status-details-bin", b"")
    own = str(found.trailers.get("x-request-id", "")).encode()
    return Answer(
        status=found.http_status,
        # Without details from the service, use the gRPC code.
        code=found.error.code_text or found.code.name.lower(),
        message=found.message,
        retryable=found.retryable if found.reason else None,
        retry_after_ms=None if found.retry_delay is None else round(found.retry_delay * 1000),
        headers=_texts(error.initial_metadata()) | _texts(error.trailing_metadata()),
        charge=_charge(error.trailing_metadata()),
        error=packed.replace(own, b"") if own and isinstance(packed, bytes) else b"",
    )


def _rest_failure(response: httpx.Response, told: Mapping[str, Any]) -> Answer:
    headers = response.headers
    after = headers.get("retry-after-ms")
    return Answer(
        status=response.status_code,
        code=told["code"],
        message=told["message"],
        retryable={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
        retry_after_ms=None if after is None else int(after),
        headers=dict(headers),
        charge=headers.get("x-charge", ""),
        error=told,
    )

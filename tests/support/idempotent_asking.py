"""Requests with an idempotency key, over each door, and their answers.

answer = await ask_keyed(stack, "rest", team.key, "first", document("default"), streamed=True)
await ask_keyed(stack, …, after=answer.ids[2])      the events after the third
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import httpx
from google.rpc import status_pb2

from chatcompletion import charges, openai_json
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from chatcompletion.v1.error_pb2 import ErrorDetail
from tests.support.accounts_stack import AccountsStack
from tests.support.asking import DoorName
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE


@dataclass(kw_only=True, slots=True)
class KeyedAnswer:
    """What a caller received."""

    documents: list[Any] = field(default_factory=list)
    """The completion, or the chunks."""
    ids: list[str] = field(default_factory=list)
    """The id, or the resume token, of each chunk."""
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    """The code of the error; "" for success."""
    status: int = 200
    is_done: bool = False
    charge: str = ""

    @property
    def is_replayed(self) -> bool:
        """Whether the answer is marked as that of another call."""
        return self.headers.get("idempotent-replayed") == "true"

    @property
    def text(self) -> str:
        """The text of the answer."""
        said = ""
        for document in self.documents:
            for choice in document["choices"]:
                said += choice.get("message", choice.get("delta")).get("content") or ""
        return said


_RECEIPT: Final = ": charge "


async def ask_keyed(
    stack: AccountsStack,
    door: DoorName,
    key: str,
    name: str | None,
    request: Mapping[str, Any],
    *,
    streamed: bool = False,
    after: str | None = None,
    leave_after: int | None = None,
    deadline: float = PATIENCE,
) -> KeyedAnswer:
    """Make a call and return its answer.

    Args:
        stack: The stack.
        door: gRPC or one of the bridges.
        key: The caller's API key.
        name: The idempotency key; None for none.
        request: The request.
        streamed: Whether to request a stream.
        after: The id of the last event that the caller has.
        leave_after: The number of chunks after which the caller leaves; None for never.
        deadline: The deadline in seconds. Only over gRPC; the bridge has its own.
    """
    if door == "grpc":
        return await ask_channel(
            stack.channel,
            key,
            name,
            request,
            streamed=streamed,
            after=after,
            leave_after=leave_after,
            deadline=deadline,
        )
    web = stack.web if door == "rest" else stack.inside
    return await ask_web(
        web, key, name, request, streamed=streamed, after=after, leave_after=leave_after
    )


async def ask_web(
    web: httpx.AsyncClient,
    key: str,
    name: str | None,
    request: Mapping[str, Any],
    *,
    streamed: bool = False,
    after: str | None = None,
    leave_after: int | None = None,
) -> KeyedAnswer:
    """Make a call over REST, as `ask_keyed`."""
    headers = {"authorization": f"Bearer {key}"}
    if name is not None:
        headers["idempotency-key"] = name
    if after is not None:
        headers["last-event-id"] = after
    answer = KeyedAnswer()
    body = {**request, "stream": True} if streamed else dict(request)
    async with web.stream("POST", PATH, json=body, headers=headers) as response:
        answer.status, answer.headers = response.status_code, dict(response.headers)
        answer.charge = answer.headers.get("x-charge", "")
        if response.status_code != 200:
            answer.code = json.loads(await response.aread())["error"]["code"]
            return answer
        if not streamed:
            answer.documents.append(json.loads(await response.aread()))
            return answer
        try:
            async for line in response.aiter_lines():
                _read(answer, line)
                if len(answer.documents) == leave_after:
                    return answer
        except httpx.RemoteProtocolError:
            assert answer.code
    return answer


def _read(answer: KeyedAnswer, line: str) -> None:
    if line.startswith("id: "):
        answer.ids.append(line.removeprefix("id: "))
    elif line.startswith(_RECEIPT):
        answer.charge = line.removeprefix(_RECEIPT)
    elif line == "data: [DONE]":
        answer.is_done = True
    elif line.startswith("data: "):
        document = json.loads(line.removeprefix("data: "))
        if "error" in document:
            answer.code = document["error"]["code"]
        else:
            answer.documents.append(document)


async def ask_channel(
    channel: grpc.aio.Channel,
    key: str,
    name: str | None,
    request: Mapping[str, Any],
    *,
    streamed: bool = False,
    after: str | None = None,
    leave_after: int | None = None,
    deadline: float = PATIENCE,
    into: KeyedAnswer | None = None,
) -> KeyedAnswer:
    """Make a call over a channel, as `ask_keyed`; `into` is the answer to fill."""
    params = openai_json.decode_request(json.dumps(request).encode())
    metadata = [("authorization", f"Bearer {key}")]
    if name is not None:
        metadata.append(("idempotency-key", name))
    stub = ChatCompletionServiceStub(channel)
    answer = into or KeyedAnswer()
    call: Any
    if streamed:
        message = StreamChatCompletionRequest(params=params, resume_token=after)
        call = stub.StreamChatCompletion(message, metadata=metadata, timeout=deadline)
    else:
        call = stub.CreateChatCompletion(
            CreateChatCompletionRequest(params=params), metadata=metadata, timeout=deadline
        )
    try:
        if streamed:
            async for response in call:
                answer.documents.append(json.loads(openai_json.encode_chunk(response.chunk)))
                if response.HasField("resume_token"):
                    answer.ids.append(response.resume_token)
                if len(answer.documents) == leave_after:
                    call.cancel()
                    return answer
            answer.is_done = True
        else:
            response = await call
            answer.documents.append(json.loads(openai_json.encode_completion(response.completion)))
    except grpc.aio.AioRpcError as error:
        _fail(answer, error)
    found = [*(await call.initial_metadata() or ()), *(await call.trailing_metadata() or ())]
    answer.headers = {name: value for name, value in found if isinstance(value, str)}
    charge = charges.of(found)
    answer.charge = "" if charge is None else charges.text(charge)
    return answer


def _fail(answer: KeyedAnswer, error: grpc.aio.AioRpcError) -> None:
    packed: Any = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    detail = ErrorDetail()
    for item in status_pb2.Status.FromString(packed).details:
        item.Unpack(detail)
    answer.code = detail.error.code_text or error.code().name
    answer.status = detail.http_status

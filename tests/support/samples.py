"""Sample values for tests of the service. Each test changes the members that it tests."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from chatcompletion import openai_json
from chatcompletion.v1 import error_pb2
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionChunk, ChatCompletionParams
from service import errors
from service.call import CURRENT, Call
from service.metering.bound import output_limit
from service.models import Model, Upstream
from service.request import AcceptedRequest
from service.telemetry import CallRecord
from service.validation import in_contract_form

UPSTREAM_KEY: Final = "upstream-key-canary-7d1f"
CALLER_KEY: Final = "caller-key-canary-51c0"
CONTENT: Final = "content-canary-93ab"

UPSTREAM: Final = Upstream(
    name="primary", base_url="https://vllm.example:8443/v1", api_key=UPSTREAM_KEY
)
MODEL: Final = Model(
    name="default",
    upstream=UPSTREAM,
    upstream_model="vendor/gemma",
    default_output_tokens=100,
    maximum_output_tokens=1000,
    output_limit="max_tokens",
    input_price=0,
    output_price=0,
    margin=0,
    attachment_tokens=16384,
    owned_by="tests",
    created=1,
)
USER: Final = {"role": "user", "content": "Hello"}


def model(**changes: Any) -> Model:
    return replace(MODEL, **changes)


def params(**members: Any) -> ChatCompletionParams:
    """Return canonical parameters with the members of a request; the value ... removes a member."""
    document = {"model": "default", "messages": [USER], **members}
    document = {name: value for name, value in document.items() if value is not ...}
    return openai_json.decode_request(json.dumps(document).encode())


def accepted_of(asked: ChatCompletionParams, of: Model = MODEL) -> AcceptedRequest:
    """Return an accepted request, as the servicer creates it."""
    return AcceptedRequest(
        params=asked,
        priced=in_contract_form(asked),
        model=of,
        output_limit=output_limit(asked, of),
    )


def accepted(of: Model = MODEL, **members: Any) -> AcceptedRequest:
    return accepted_of(params(**members), of)


def record(**members: Any) -> CallRecord:
    fields: dict[str, Any] = {"method": "CreateChatCompletion", "request_id": "req_1"}
    return CallRecord(**{**fields, "started": 0.0, **members})


def call(**members: Any) -> Call:
    """Return a call of the current task with a deadline in a minute."""
    task = asyncio.current_task()
    assert task is not None
    fields: dict[str, Any] = {
        "record": record(),
        "authorization": f"Bearer {CALLER_KEY}",
        "carried": (),
        "deadline": asyncio.get_running_loop().time() + 60,
        "deadline_is_callers": False,
        "task": task,
    }
    return Call(**{**fields, **members})


@contextmanager
def serving(current: Call) -> Iterator[None]:
    """Make a call the current call of this task."""
    token = CURRENT.set(current)
    try:
        yield
    finally:
        CURRENT.reset(token)


# ------------------------------------------------------------------------ responses of upstreams


def completion(**members: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "vendor/gemma",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": CONTENT},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        **members,
    }


def chunk(
    content: str | None = "x", finish: str | None = None, *, index: int = 0, **members: Any
) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "vendor/gemma",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
        **members,
    }


def usage_chunk(prompt: int = 3, completed: int = 5) -> dict[str, Any]:
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completed,
        "total_tokens": prompt + completed,
    }
    return {**chunk(), "choices": [], "usage": usage}


def chunk_message(document: dict[str, Any]) -> ChatCompletionChunk:
    return openai_json.decode_chunk(json.dumps(document).encode())


def event(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(document).encode()


DONE: Final = b"data: [DONE]\n\n"


# ------------------------------------------------------------------------------ errors and contexts


def details(told: errors.Status) -> dict[type[Message], Any]:
    """Return the details of a status, by type."""
    trailers = dict(told.trailing_metadata)
    packed = status_pb2.Status.FromString(trailers[errors.STATUS_DETAILS])
    kinds: tuple[type[Message], ...] = (
        error_details_pb2.ErrorInfo,
        error_pb2.ErrorDetail,
        error_details_pb2.RetryInfo,
        error_details_pb2.BadRequest,
    )
    found: dict[type[Message], Any] = {}
    for detail in packed.details:
        for kind in kinds:
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                assert detail.Unpack(message)
                assert kind not in found
                found[kind] = message
    assert len(found) == len(packed.details)
    assert packed.code == told.code.value[0]
    assert packed.message == told.details
    return found


class Abort(Exception):  # noqa: N818  (grpc's own is named alike)
    """The exception that `abort` of a context raises."""


class FakeContext:
    """A recording `ServicerContext`, with the methods that the interceptor and the servicer use."""

    def __init__(
        self,
        *,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        remaining: float | None = None,
        done: bool = False,
    ) -> None:
        self.metadata = metadata
        self.remaining = remaining
        self.is_done = done
        self.initial: dict[str, str] | None = None
        self.trailing: dict[str, str | bytes] = {}
        self.written: list[Any] = []
        self.aborted: errors.Status | None = None
        self.requests: list[Any] = []
        """The messages that `read` returns before the end."""

    async def read(self) -> Any:
        return self.requests.pop(0) if self.requests else grpc.aio.EOF

    def peer(self) -> str:
        return "in-process"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self.metadata

    def time_remaining(self) -> float | None:
        return self.remaining

    def done(self) -> bool:
        return self.is_done

    async def send_initial_metadata(self, metadata: Any) -> None:
        assert self.initial is None
        self.initial = dict(metadata)

    async def write(self, message: Any) -> None:
        assert self.initial is not None
        self.written.append(message)

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = dict(metadata)

    async def abort(self, code: grpc.StatusCode, text: str, trailers: Any) -> None:
        self.aborted = errors.Status(code, text, tuple(trailers))
        raise Abort

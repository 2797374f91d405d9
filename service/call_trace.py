"""The spans of a call, with the attributes of OpenTelemetry's semantic conventions.

    arrival -> chatcompletion.v1.ChatCompletionService/CreateChatCompletion    server   rpc.*
                 request to the upstream -> chat MODEL                         client   gen_ai.*

The span of an upstream covers its retries there; each upstream has its own. Attributes have names,
numbers and settings of the request, never a text of a caller or of a model. Those that no
convention has begin with `chat.`.
"""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from chatcompletion.reasons import RULES
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from process.trace_context import Carried
from service.models import Model
from service.telemetry import CallRecord

if TYPE_CHECKING:  # imported only if spans are exported
    from process.tracing import Span

_Value: TypeAlias = str | int | float | bool | tuple[str, ...]

_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The codes that are errors of a server, by the conventions. The others are those of its caller."""

_NUMBERS: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "reasoning_effort": "gen_ai.request.reasoning.level",
}
"""The parameters of a request that are attributes."""
_MOST_REASONS: Final = 128
"""Maximum number of finish reasons in an attribute."""
_LONGEST: Final = 256
"""Maximum characters of a name that a caller or an upstream chooses."""


class CallTrace:
    """The spans of one call.

    Args:
        span: The span of the call.
        now: Returns the time in nanoseconds since the Unix epoch.
    """

    def __init__(self, span: "Span", now: Callable[[], int] = time.time_ns) -> None:
        self._span = span
        self._now = now
        self._upstream: Span | None = None
        self._asked = 0
        self._closed: int | None = None
        self._first: int | None = None
        self._model = ""
        self._id = ""
        self._reasons: dict[int, str] = {}

    @property
    def trace_id(self) -> str:
        """The id of the trace."""
        return self._span.trace_id

    @property
    def span_id(self) -> str:
        """The id of the span of the call."""
        return self._span.span_id

    def ask(self, params: ChatCompletionParams, model: Model, *, streamed: bool) -> Carried:
        """Begin the span of the upstream, and return the headers of its requests.

        Args:
            params: The parameters of the request.
            model: The model.
            streamed: Whether the answer is a stream.
        """
        if self._upstream is not None:  # the request goes to another upstream
            self._upstream.end({}, failed=True)
        self._asked = self._now()
        attributes = request_attributes(params, model, streamed=streamed)
        self._upstream = self._span.client(f"chat {model.upstream_model[:_LONGEST]}", attributes)
        return self._upstream.carried

    def hear(self, answer: ChatCompletion | ChatCompletionChunk) -> None:
        """Note the attributes of a completion or a chunk, as the upstream sent it."""
        if self._first is None:
            self._first = self._now()
            self._model, self._id = answer.model, answer.id
        for choice in answer.choices[:]:
            if choice.finish_reason and len(self._reasons) < _MOST_REASONS:
                self._reasons[choice.index] = choice.finish_reason[:_LONGEST]

    def close(self) -> None:
        """Note that the upstream's response ended, or that it is not read any more."""
        self._closed = self._now()

    def end(self, record: CallRecord) -> None:
        """End the spans of a call."""
        failed = {"error.type": record.reason} if record.reason else {}
        if self._upstream is not None:
            faulty = record.reason not in {"", "STORE_UNAVAILABLE"}
            attributes = {**self._response(record), **(failed if faulty else {})}
            self._upstream.end(attributes, failed=faulty, at=self._closed)
        code = RULES[record.reason].grpc_code.name if record.reason in RULES else "OK"
        self._span.end(
            {"rpc.response.status_code": code, **_of_call(record), **failed},
            failed=code in _FAULTS,
        )

    def _response(self, record: CallRecord) -> dict[str, _Value]:
        """Return the attributes of the upstream's response."""
        found: dict[str, _Value] = {}
        if self._model:
            found["gen_ai.response.model"] = self._model[:_LONGEST]
        if self._id:
            found["gen_ai.response.id"] = self._id[:_LONGEST]
        if self._reasons:
            ordered = sorted(self._reasons.items())
            found["gen_ai.response.finish_reasons"] = tuple(reason for _, reason in ordered)
        if self._first is not None and record.method.startswith("Stream"):
            seconds = (self._first - self._asked) / 1e9
            found["gen_ai.response.time_to_first_chunk"] = seconds
        if record.prompt_tokens or record.completion_tokens:
            found["gen_ai.usage.input_tokens"] = record.prompt_tokens
            found["gen_ai.usage.output_tokens"] = record.completion_tokens
            found["chat.usage.estimated"] = record.estimated
        if record.upstream_status:
            found["http.response.status_code"] = record.upstream_status
        if record.upstream_attempts > 1:
            found["http.request.resend_count"] = record.upstream_attempts - 1
        if record.upstream_report is not None:
            found["chat.upstream.cause"] = record.upstream_report.cause
        return found


def method_attributes(method: str) -> Mapping[str, _Value]:
    """Return the attributes of an RPC that arrives.

    Args:
        method: Its full name, such as `chatcompletion.v1.ModelService/ListModels`.
    """
    return {"rpc.system.name": "grpc", "rpc.method": method}


def request_attributes(
    params: ChatCompletionParams, model: Model, *, streamed: bool
) -> dict[str, _Value]:
    """Return the attributes of a request to an upstream.

    Args:
        params: The parameters of the request.
        model: The model.
        streamed: Whether the answer is a stream.
    """
    host, port = _place(model.upstream.base_url)
    found: dict[str, _Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": model.upstream.name,
        "gen_ai.request.model": model.upstream_model[:_LONGEST],
        "gen_ai.request.stream": streamed,
        "server.address": host,
        "server.port": port,
    }
    for member, name in _NUMBERS.items():
        if params.HasField(member):  # type: ignore[arg-type]  # a name of the table
            value = getattr(params, member)
            found[name] = value[:_LONGEST] if isinstance(value, str) else value
    for limit in ("max_completion_tokens", "max_tokens"):
        if params.HasField(limit):
            found["gen_ai.request.max_tokens"] = getattr(params, limit)
            break
    if params.HasField("n") and params.n != 1:
        found["gen_ai.request.choice.count"] = params.n
    if params.HasField("response_format"):
        text = params.response_format.type == "text"
        found["gen_ai.output.type"] = "text" if text else "json"
    return found


def _of_call(record: CallRecord) -> dict[str, _Value]:
    """Return the attributes of a call that are also in its log line."""
    found: dict[str, _Value] = {"chat.request_id": record.request_id}
    if record.key_name:
        found["chat.account"], found["chat.key"] = record.account, record.key_name
    if record.charge is not None:
        found["chat.charge_nano_credits"] = record.charge
    found["chat.model"] = record.model[:_LONGEST]
    return found


@lru_cache(maxsize=128)
def _place(base_url: str) -> tuple[str, int]:
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

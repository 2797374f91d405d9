"""What goes to the upstream and what comes back: the little that is changed on the way.

    caller ── model, stream, stream_options, output limit ──► upstream
    caller ◄── model; the usage chunk, if it was not asked for ── upstream

Everything else passes as it is. `Progress` watches a stream go by: whether it is complete, and what
it used.
"""

from dataclasses import dataclass, field
from typing import Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
    ChatMessageDelta,
    Usage,
)
from service.errors import InvalidRequest, Violation
from service.models import Model


def output_limit(params: ChatCompletionParams, model: Model) -> int:
    """Return how many tokens each choice may have.

    Raises:
        InvalidRequest: the request asks for more than the model's maximum.
    """
    if params.HasField("max_completion_tokens"):
        name, asked = "max_completion_tokens", params.max_completion_tokens
    elif params.HasField("max_tokens"):
        name, asked = "max_tokens", params.max_tokens
    else:
        return model.default_output_tokens
    if asked > model.maximum_output_tokens:
        raise InvalidRequest.of(
            [
                Violation(
                    param=name,
                    message=f"Must be at most {model.maximum_output_tokens} for this model.",
                    code="number_out_of_range",
                )
            ]
        )
    return asked


def outgoing(params: ChatCompletionParams, model: Model, *, streamed: bool) -> bytes:
    """Return the body for the upstream. Changes `params`, which the caller no longer needs.

    Raises:
        InvalidRequest: the request asks for more than the model's maximum.
    """
    limit = output_limit(params, model)
    if not (params.HasField("max_tokens") or params.HasField("max_completion_tokens")):
        # An explicit null asks for the default, too.
        for name in ("max_tokens", "max_completion_tokens"):
            params.extra_json.pop(name, None)
        setattr(params, model.output_limit, limit)
    params.model = model.upstream_model
    for name in ("stream", "stream_options"):
        params.extra_json.pop(name, None)
    if streamed:
        params.stream = True
        params.stream_options.include_usage = True
        params.stream_options.extra_json.pop("include_usage", None)
    else:
        params.ClearField("stream")
    return openai_json.encode_request(params)


def rename(answer: ChatCompletion | ChatCompletionChunk, model: Model) -> None:
    """Give an answer the name of the model that the caller asked for."""
    answer.model = model.name
    if answer.extra_json:
        answer.extra_json.pop("model", None)


_BYTES_PER_TOKEN: Final = 4
"""About as many as English text has; what is counted where the upstream does not tell."""


@dataclass(slots=True)
class Progress:
    """What is known of a stream so far."""

    wants_usage: bool
    """The caller asked for the usage chunk."""
    prompt_estimate: int = 0
    """About how many tokens the prompt has, where the upstream does not tell."""
    delivered: bool = False
    """Something that the model wrote was given to the caller."""
    usage: Usage | None = None
    """The last usage that the upstream reported, where it makes sense: both counts, at least 0."""
    counted: int = 0
    """Pieces of content that went by; close to the number of tokens."""
    _begun: set[int] = field(default_factory=set)
    _finished: set[int] = field(default_factory=set)

    def observe(self, chunk: ChatCompletionChunk) -> bool:
        """Take note of a chunk and return whether it is the caller's."""
        if chunk.HasField("usage"):
            self._report(chunk.usage)
            if not chunk.choices:
                return self.wants_usage
        for choice in chunk.choices:
            self._begun.add(choice.index)
            if choice.finish_reason:
                self._finished.add(choice.index)
            if _says_something(choice.delta):
                self.counted += 1
                self.delivered = True
        return True

    def take(self, completion: ChatCompletion) -> None:
        """Take note of a whole completion."""
        self.delivered = True
        if completion.HasField("usage"):
            self._report(completion.usage)
        if self.usage is None:
            text = sum(choice.message.ByteSize() for choice in completion.choices)
            self.counted = -(-text // _BYTES_PER_TOKEN)

    def _report(self, usage: Usage) -> None:
        # What is no count, such as a text or a fraction, is not in the fields.
        told = usage.HasField("prompt_tokens") and usage.HasField("completion_tokens")
        if told and min(usage.prompt_tokens, usage.completion_tokens) >= 0:
            self.usage = usage

    @property
    def complete(self) -> bool:
        """Whether each choice that began has its finish_reason, and there is one."""
        return bool(self._finished) and self._begun == self._finished


def _says_something(delta: ChatMessageDelta) -> bool:
    return bool(
        delta.content_text
        or delta.tool_calls
        or delta.reasoning_content
        or delta.reasoning
        or delta.refusal
        or delta.HasField("content_parts")
        or delta.HasField("function_call")
        or delta.HasField("audio")
        # A piece of a character that the upstream cut in two.
        or delta.extra_json.get("content", "null") not in _NOTHING
    )


_NOTHING: Final = ("null", '""')

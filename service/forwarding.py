"""What goes to the upstream and what comes back: the little that is changed on the way.

    caller ── model, stream, stream_options, output limit ──► upstream
    caller ◄── model; the usage chunk, if it was not asked for ── upstream

Everything else passes as it is. `Progress` watches a stream go by: whether it is complete, and what
it used.
"""

from dataclasses import dataclass, field

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
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


@dataclass(slots=True)
class Progress:
    """What is known of a stream so far."""

    wants_usage: bool
    """The caller asked for the usage chunk."""
    usage: Usage | None = None
    """The last usage that the upstream reported."""
    counted: int = 0
    """Pieces of content that went by; close to the number of tokens."""
    _begun: set[int] = field(default_factory=set)
    _finished: set[int] = field(default_factory=set)

    def observe(self, chunk: ChatCompletionChunk) -> bool:
        """Take note of a chunk and return whether it is the caller's."""
        if chunk.HasField("usage"):
            self.usage = chunk.usage
            if not chunk.choices:
                return self.wants_usage
        for choice in chunk.choices:
            self._begun.add(choice.index)
            if choice.finish_reason:
                self._finished.add(choice.index)
            else:
                self.counted += 1
        return True

    @property
    def complete(self) -> bool:
        """Whether each choice that began has its finish_reason, and there is one."""
        return bool(self._finished) and self._begun == self._finished

"""The changes to requests and responses between caller and upstream.

    caller -> model, stream, stream_options, output limit -> upstream
    caller <- model <- upstream

`metering.progress` withholds a usage chunk that was not requested. Everything else is forwarded
unchanged.
"""

from typing import Final, Literal

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
    StreamOptions,
)
from service.models import OUTPUT_LIMITS, Model
from service.receipts import make_room
from service.request import AcceptedRequest

_COST: Final = "cost"
"""What the names of costs in usage have in common: OpenRouter's `cost` and `cost_details`, and
others' `estimated_cost`. They show what the operator pays."""


SentOptions = Literal["all", "usage", "none"]
"""The `stream_options` of a stream: the caller's and `include_usage`, the latter alone, or none."""


def outgoing(request: AcceptedRequest, *, streamed: bool, options: SentOptions = "all") -> bytes:
    """Return the body for the upstream.

    Args:
        request: The request.
        streamed: Whether to request a stream.
        options: The `stream_options` of a stream.
    """
    params, model = request.params, request.model
    changes: dict[str, str | int | bool | StreamOptions | None] = {
        "model": model.upstream_model,
        # Remove the other member: an upstream that ignores it would have no limit.
        **dict.fromkeys(OUTPUT_LIMITS),
        model.output_limit: request.output_limit if request.sends_limit else None,
        "stream": True if streamed else _plain_stream(params),
    }
    if options == "none":
        changes["stream_options"] = None
    elif streamed:
        asked = StreamOptions()
        if options == "all":
            asked.CopyFrom(params.stream_options)
            openai_json.clear_member(asked, "include_usage")
        asked.include_usage = True
        changes["stream_options"] = asked
    elif not params.HasField("stream_options"):
        changes["stream_options"] = None
    return openai_json.encode_request(params, changes)


def _plain_stream(params: ChatCompletionParams) -> bool | None:
    """Return the value of `stream` in a request without a stream: what the caller sent, if any."""
    return False if params.HasField("stream") and not params.stream else None


def restyle(
    answer: ChatCompletion | ChatCompletionChunk, model: Model, *, gives_receipt: bool = False
) -> None:
    """Apply the dialect of a model to a response: its finish reasons, and costs in its usage.

    Args:
        answer: The response, which is changed.
        model: The model.
        gives_receipt: Whether the usage gets a receipt, for which the upstream's cost makes room.
    """
    dialect = model.dialect
    if dialect.finish_reasons:
        for choice in answer.choices:
            finish = choice.finish_reason
            if finish in dialect.finish_reasons:
                choice.finish_reason = dialect.finish_reasons[finish]
    if not answer.HasField("usage"):
        return
    extra = answer.usage.extra_json
    if model.hides_cost and extra:
        for name in [name for name in extra if _COST in name.lower()]:
            del extra[name]
    if gives_receipt and extra:
        make_room(extra)


def rename(answer: ChatCompletion | ChatCompletionChunk, model: Model) -> None:
    """Set the name of the model in a response to the name in the request."""
    if not answer.HasField("model"):
        openai_json.clear_member(answer, "model")
    answer.model = model.name

"""The changes to requests and responses between caller and upstream.

    caller -> model, stream, stream_options, output limit -> upstream
    caller <- model <- upstream

`metering.progress` withholds a usage chunk that was not requested. Everything else is forwarded
unchanged.
"""

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    StreamOptions,
)
from service.models import OUTPUT_LIMITS, Model
from service.request import AcceptedRequest


def outgoing(request: AcceptedRequest, *, streamed: bool) -> bytes:
    """Return the body for the upstream."""
    params, model = request.params, request.model
    changes: dict[str, str | int | bool | StreamOptions | None] = {
        "model": model.upstream_model,
        # Remove the other member: an upstream that ignores it would have no limit.
        **dict.fromkeys(OUTPUT_LIMITS),
        model.output_limit: request.output_limit,
        "stream": True if streamed else None,
    }
    if streamed:
        options = StreamOptions()
        options.CopyFrom(params.stream_options)
        openai_json.clear_member(options, "include_usage")
        options.include_usage = True
        changes["stream_options"] = options
    elif not params.HasField("stream_options"):
        changes["stream_options"] = None
    return openai_json.encode_request(params, changes)


def rename(answer: ChatCompletion | ChatCompletionChunk, model: Model) -> None:
    """Set the name of the model in a response to the name in the request."""
    if not answer.HasField("model"):
        openai_json.clear_member(answer, "model")
    answer.model = model.name

"""What goes to the upstream and what comes back: the little that is changed on the way.

    caller ── model, stream, stream_options, output limit ──► upstream
    caller ◄── model; the usage chunk, if it was not asked for ── upstream

Everything else passes as it is.
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
        # An upstream may ignore the other member: a limit there would be none.
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
    """Give an answer the name of the model that the caller asked for."""
    if not answer.HasField("model"):
        openai_json.clear_member(answer, "model")
    answer.model = model.name

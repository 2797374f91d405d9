"""What goes to the upstream and what comes back: the little that is changed on the way.

    caller ── model, stream, stream_options, output limit ──► upstream
    caller ◄── model; the usage chunk, if it was not asked for ── upstream

Everything else passes as it is.
"""

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from service.metering.bound import output_limit
from service.models import OUTPUT_LIMITS, Model


def outgoing(params: ChatCompletionParams, model: Model, *, streamed: bool) -> bytes:
    """Return the body for the upstream. Changes `params`, which the caller no longer needs.

    Raises:
        InvalidRequest: the request asks for more than the model's maximum.
    """
    limit = output_limit(params, model)
    # An upstream may ignore the other member: a limit there would be none.
    for member in OUTPUT_LIMITS:
        openai_json.clear_member(params, member)
    setattr(params, model.output_limit, limit)
    params.model = model.upstream_model
    openai_json.clear_member(params, "stream")
    if not params.HasField("stream_options"):
        openai_json.clear_member(params, "stream_options")
    if streamed:
        params.stream = True
        openai_json.clear_member(params.stream_options, "include_usage")
        params.stream_options.include_usage = True
    return openai_json.encode_request(params)


def rename(answer: ChatCompletion | ChatCompletionChunk, model: Model) -> None:
    """Give an answer the name of the model that the caller asked for."""
    if not answer.HasField("model"):
        openai_json.clear_member(answer, "model")
    answer.model = model.name

"""Completions as OpenAI's JSON.

completion -> {"object": "chat.completion", ...}
completion -> role chunk, one chunk per token, finish chunk, alternating between choices;
              a usage chunk if requested
"""

import json
from collections.abc import Iterator

import msgspec

from service.simulator import text
from service.simulator.completion import FINGERPRINT, CalledTool, Choice, Completion
from service.simulator.completion_request import Document

_encode = msgspec.json.Encoder().encode


def encode(document: Document) -> bytes:
    """Write the document as compact JSON, on one line."""
    try:
        return _encode(document)
    except UnicodeEncodeError:
        # An unpaired surrogate, from a name in the request, can only be sent escaped.
        return json.dumps(document, separators=(",", ":")).encode()


def completion_document(completion: Completion) -> Document:
    """Return the body of the unary response."""
    return {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [
            {
                "index": choice.index,
                "message": _message(choice),
                "logprobs": _logprobs(completion, choice, choice.tokens, 0),
                "finish_reason": choice.finish_reason,
            }
            for choice in completion.choices
        ],
        "usage": usage(completion),
        "system_fingerprint": FINGERPRINT,
    }


def chunk_documents(completion: Completion, *, include_usage: bool) -> Iterator[Document]:
    """Yield the documents of the streamed response, without `[DONE]`."""
    head: Document = {
        "id": completion.id,
        "object": "chat.completion.chunk",
        "created": completion.created,
        "model": completion.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [],
    }
    if include_usage:
        head["usage"] = None
    turns = [_choice_chunks(completion, choice) for choice in completion.choices]
    while turns:
        unfinished = []
        for turn in turns:
            choice = next(turn, None)
            if choice is not None:
                yield {**head, "choices": [choice]}
                unfinished.append(turn)
        turns = unfinished
    if include_usage:
        yield {**head, "usage": usage(completion)}


def usage(completion: Completion) -> Document:
    """Return the token counts."""
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def models_document() -> Document:
    """Return the body of `GET /v1/models`: one model, although the simulator serves every name."""
    return {"object": "list", "data": [model_document("simulator")]}


def model_document(model: str) -> Document:
    """Return the body of `GET /v1/models/{model}`."""
    return {"id": model, "object": "model", "created": 1_700_000_000, "owned_by": FINGERPRINT}


def _message(choice: Choice) -> Document:
    message: Document = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    whole = "".join(choice.tokens)
    call = choice.call
    if call is None:
        message["content"] = whole
    elif call.kind == "function_call":
        message["function_call"] = {"name": call.name, "arguments": whole}
    else:
        message["tool_calls"] = [{"id": call.id, "type": call.kind, **_called(call, whole)}]
    return message


def _choice_chunks(completion: Completion, choice: Choice) -> Iterator[Document]:
    def in_choice(delta: Document) -> Document:
        return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}

    call = choice.call
    if call is None:
        yield in_choice({"role": "assistant", "content": "", "refusal": None})
    else:
        first = {"role": "assistant", "content": None, "refusal": None}
        yield in_choice({**first, **_call_opening(call)})
    for position, token in enumerate(choice.tokens):
        if call is None:
            piece = in_choice({"content": token})
            if completion.logprobs is not None:
                piece["logprobs"] = _logprobs(completion, choice, [token], position)
            yield piece
        elif call.kind == "function_call":
            yield in_choice({"function_call": {"arguments": token}})
        else:
            yield in_choice({"tool_calls": [{"index": 0, **_fragment(call, token)}]})
    yield {**in_choice({}), "finish_reason": choice.finish_reason}


def _call_opening(call: CalledTool) -> Document:
    if call.kind == "function_call":
        return {"function_call": {"name": call.name, "arguments": ""}}
    opening = {"index": 0, "id": call.id, "type": call.kind, **_called(call, "")}
    return {"tool_calls": [opening]}


def _called(call: CalledTool, whole: str) -> Document:
    argument = "input" if call.kind == "custom" else "arguments"
    return {call.kind: {"name": call.name, argument: whole}}


def _fragment(call: CalledTool, token: str) -> Document:
    return {call.kind: {"input" if call.kind == "custom" else "arguments": token}}


def _logprobs(
    completion: Completion, choice: Choice, tokens: list[str], position: int
) -> Document | None:
    if completion.logprobs is None or choice.call is not None:
        return None
    return {
        "content": [
            _logprob(choice.key, place, token, completion.logprobs)
            for place, token in enumerate(tokens, position)
        ],
        "refusal": None,
    }


def _logprob(key: bytes, position: int, token: str, alternatives: int) -> Document:
    own = text.digest(key, b"%d" % position)
    # -0.004 to -1: the chosen token is the most likely one; its alternatives are less likely.
    likeliest = -(own[0] + 1) / 256
    top = [_entry(token, likeliest)]
    others = (word for word in text.alternatives(own, alternatives + 1) if word != token)
    for step, word in zip(range(1, alternatives), others, strict=False):
        top.append(_entry(word, likeliest - step * (1 + own[1] / 256)))
    return {**_entry(token, likeliest), "top_logprobs": top[:alternatives]}


def _entry(token: str, logprob: float) -> Document:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

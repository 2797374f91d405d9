import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from service.simulator.completion import Completion, complete
from service.simulator.completion_request import parse
from service.simulator.response_documents import (
    chunk_documents,
    completion_document,
    encode,
    model_document,
    models_document,
)

MESSAGES = [{"role": "user", "content": "Hello there."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "forecast",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
CUSTOM = {"type": "custom", "custom": {"name": "python"}}

REQUESTS: dict[str, dict[str, Any]] = {
    "text": {},
    "three choices": {"n": 3},
    "stopped": {"stop": "built"},
    "nothing left": {"max_tokens": 0},
    "logprobs": {"logprobs": True, "top_logprobs": 3, "n": 2},
    "logprobs without alternatives": {"logprobs": True},
    "tool call": {"tools": [TOOL], "tool_choice": "required"},
    "tool call of two choices": {"tools": [TOOL], "tool_choice": "required", "n": 2},
    "custom call": {"tools": [CUSTOM], "tool_choice": "required"},
    "function call": {"functions": [TOOL["function"]], "function_call": {"name": "forecast"}},
    "json": {"response_format": {"type": "json_object"}},
}

every_request = pytest.mark.parametrize("members", REQUESTS.values(), ids=REQUESTS)


def answer(members: dict[str, Any]) -> Completion:
    request = parse({"model": "m", "messages": MESSAGES, **members}, tokens=20)
    return complete(request, seed=0, length=20)


def gathered(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the messages that a client assembles from the chunks, by choice."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk["choices"]:
            choice = choices.setdefault(part["index"], {"logprobs": None, "message": {}})
            for name, value in part["delta"].items():
                _add(choice["message"], name, value)
            if part["logprobs"] is not None:
                known = choice["logprobs"] or {"content": [], "refusal": None}
                known["content"] += part["logprobs"]["content"]
                choice["logprobs"] = known
            if part["finish_reason"] is not None:
                assert "finish_reason" not in choice
                choice["finish_reason"] = part["finish_reason"]
    return choices


def _add(message: dict[str, Any], name: str, value: Any) -> None:
    if name == "tool_calls":
        (call,) = value
        assert call.pop("index") == 0
        known = message.setdefault("tool_calls", [{}])[0]
        for member, part in call.items():
            assert isinstance(part, dict) or member not in known
            if isinstance(part, dict):
                for key, piece in part.items():
                    inner = known.setdefault(member, {})
                    inner[key] = inner.get(key, "") + piece
            else:
                known[member] = part
    elif name == "function_call":
        known = message.setdefault("function_call", {})
        for key, piece in value.items():
            known[key] = known.get(key, "") + piece
    elif isinstance(value, str):
        message[name] = (message.get(name) or "") + value
    else:
        assert name not in message
        message[name] = value


@every_request
def test_a_stream_says_what_the_unary_answer_says(members: dict[str, Any]) -> None:
    completion = answer(members)
    unary = json.loads(encode(completion_document(completion)))
    chunks = [json.loads(encode(c)) for c in chunk_documents(completion, include_usage=True)]

    choices = gathered(chunks)
    for choice in unary["choices"]:
        streamed = choices[choice["index"]]
        del choice["message"]["annotations"]
        if choice["logprobs"] == {"content": [], "refusal": None}:
            choice["logprobs"] = None
        assert streamed["message"] == choice["message"]
        assert streamed["finish_reason"] == choice["finish_reason"]
        assert streamed["logprobs"] == choice["logprobs"]
    assert chunks[-1]["usage"] == unary["usage"]


@every_request
def test_the_documents_are_of_openais_types(members: dict[str, Any]) -> None:
    completion = answer(members)

    ChatCompletion.model_validate(completion_document(completion), strict=True)
    for chunk in chunk_documents(completion, include_usage=True):
        if "custom" not in json.dumps(chunk):  # openai-python knows no custom calls in chunks.
            ChatCompletionChunk.model_validate(chunk, strict=True)


@every_request
def test_the_usage_has_a_chunk_of_its_own_where_it_is_asked_for(members: dict[str, Any]) -> None:
    completion = answer(members)
    *chunks, last = chunk_documents(completion, include_usage=True)

    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == completion.completion_tokens
    without = list(chunk_documents(completion, include_usage=False))
    assert [{**chunk, "usage": None} for chunk in without] == chunks
    assert not any("usage" in chunk for chunk in without)


def test_a_stream_begins_with_the_role_and_ends_with_the_reason() -> None:
    first, *_, last = chunk_documents(answer({}), include_usage=False)

    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]


def test_the_choices_take_turns() -> None:
    chunks = list(chunk_documents(answer({"n": 3}), include_usage=False))

    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1, 2] * 22


def test_a_call_is_identified_in_its_first_chunk_only() -> None:
    first, *others = chunk_documents(answer(REQUESTS["tool call"]), include_usage=False)

    (opening,) = first["choices"][0]["delta"]["tool_calls"]
    assert opening["type"] == "function"
    assert opening["function"] == {"name": "forecast", "arguments": ""}
    fragments = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in others[:-1]]
    assert len(fragments) > 3
    assert all(set(fragment) == {"index", "function"} for fragment in fragments)
    assert all(set(fragment["function"]) == {"arguments"} for fragment in fragments)


def test_log_probabilities_belong_to_the_text() -> None:
    (choice,) = completion_document(answer({"logprobs": True, "top_logprobs": 5}))["choices"]
    entries = choice["logprobs"]["content"]

    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len({top["token"] for top in entry["top_logprobs"]}) == 5
        assert entry["top_logprobs"][0]["token"] == entry["token"]
        logprobs = [top["logprob"] for top in entry["top_logprobs"]]
        assert logprobs == sorted(logprobs, reverse=True)
        assert logprobs[0] == entry["logprob"] < 0


def test_everything_says_that_it_is_a_simulator() -> None:
    assert completion_document(answer({}))["system_fingerprint"] == "simulator"
    assert next(chunk_documents(answer({}), include_usage=False))["system_fingerprint"] == (
        "simulator"
    )
    assert model_document("a/b:c")["owned_by"] == "simulator"
    assert [model["id"] for model in models_document()["data"]] == ["simulator"]


def test_a_document_is_one_line_and_lone_surrogates_are_escaped() -> None:
    assert encode({"a": "\u2028\n"}) == '{"a":"\u2028\\n"}'.encode()
    assert encode({"a": "\ud83d"}) == b'{"a":"\\ud83d"}'

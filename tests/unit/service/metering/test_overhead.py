import json
from dataclasses import replace

import pytest

from chatcompletion import openai_json
from service.metering import overhead
from service.metering.overhead import TOKENS_PER_MESSAGE, TOKENS_PER_PROMPT
from service.models import Model
from tests.unit.service.metering.test_bound import MODEL

HELLO = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def added(model: Model, **members: object) -> int:
    document = {"model": "m", "messages": [HELLO, HELLO], **members}
    return overhead.of_messages(openai_json.decode_request(json.dumps(document).encode()), model)


def measured(template: int | None, message: int | None) -> Model:
    return replace(MODEL, template_tokens=template, message_tokens=message)


@pytest.mark.parametrize(
    ("template", "message", "tokens"),
    [
        (None, None, TOKENS_PER_PROMPT + 2 * TOKENS_PER_MESSAGE),
        (40, 8, 40 + 2 * 8),
        (40, None, 40 + 2 * TOKENS_PER_MESSAGE),
        (None, 8, TOKENS_PER_PROMPT + 2 * 8),
        (2000, 50, 2000 + 2 * 50),
    ],
)
def test_a_model_has_its_own_numbers(
    template: int | None, message: int | None, tokens: int
) -> None:
    assert added(measured(template, message)) == tokens


@pytest.mark.parametrize(
    "members",
    [
        {"temperature": 1, "stop": ["x"], "n": 2, "max_tokens": 9, "user": "u", "seed": 1},
        {"stop": "x", "metadata": {"a": "b"}, "stream_options": {"include_usage": True}},
        {"messages": [{"role": "system", "content": "a"}, HELLO]},
        {"messages": [HELLO, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
    ],
    ids=str,
)
def test_a_request_of_text_has_them(members: dict[str, object]) -> None:
    assert added(measured(40, 8), **members) == 40 + 2 * 8


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [TOOL]},
        {"functions": [{"name": "f"}]},
        {"response_format": {"type": "json_object"}},
        {"reasoning_effort": "high"},
        {"verbosity": "low"},
        {"prediction": {"type": "content", "content": "a"}},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"documents": []},
        {"messages": [HELLO, {"role": "tool", "tool_call_id": "c", "content": "a"}]},
        {"messages": [HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        {"messages": [HELLO, {**HELLO, "name": "n"}]},
        {"messages": [HELLO, {**HELLO, "role": "critic"}]},
        {"messages": [HELLO, {**HELLO, "reasoning_content": "a"}]},
        {"messages": [HELLO, {**HELLO, "prefix": True}]},
        {
            "messages": [
                HELLO,
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]},
            ]
        },
        {"messages": [HELLO, {"role": "user", "content": [{"type": "text", "text": "a", "b": 1}]}]},
    ],
    ids=str,
)
def test_every_other_request_has_the_larger_ones(members: dict[str, object]) -> None:
    default = TOKENS_PER_PROMPT + 2 * TOKENS_PER_MESSAGE
    assert added(measured(40, 8), **members) == default
    assert added(measured(2000, 50), **members) == 2000 + 2 * 50
    assert added(measured(None, 50), **members) == TOKENS_PER_PROMPT + 2 * 50

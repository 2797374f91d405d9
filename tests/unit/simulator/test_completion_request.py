from typing import Any

import pytest

from service.simulator.completion_request import CompletionRequest, ForcedCall, decode, parse, texts
from service.simulator.error_objects import HttpError

USER = {"role": "user", "content": "please use get_weather"}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object"}},
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
PYTHON = {"type": "custom", "custom": {"name": "python"}}
CALLED_WEATHER = ForcedCall(kind="function", name="get_weather", schema={"type": "object"})
CALLED_CLOCK = ForcedCall(kind="function", name="get_time")
CALLED_PYTHON = ForcedCall(kind="custom", name="python")


def read(**members: Any) -> CompletionRequest:
    return parse({"model": "m", "messages": [USER], **members}, tokens=10)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{} {}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"\xff",
        b'{"a":"\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        decode(body)

    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b'{"a":"\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a":123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (b'{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_unusual_json_is_read(body: bytes, document: object) -> None:
    assert decode(body) == document


REFUSALS: dict[str, tuple[dict[str, Any], str | None]] = {
    "no model": ({"model": None}, None),
    "empty model": ({"model": ""}, "model"),
    "model of a wrong type": ({"model": 7}, "model"),
    "no messages": ({"messages": None}, "messages"),
    "empty messages": ({"messages": []}, "messages"),
    "messages of a wrong type": ({"messages": "hi"}, "messages"),
    "message of a wrong type": ({"messages": ["hi"]}, "messages"),
    "n of 0": ({"n": 0}, "n"),
    "n of 129": ({"n": 129}, "n"),
    "n as text": ({"n": "1"}, "n"),
    "n true": ({"n": True}, "n"),
    "max_tokens below 0": ({"max_tokens": -1}, "max_tokens"),
    "max_completion_tokens as a fraction": (
        {"max_completion_tokens": 1.5},
        "max_completion_tokens",
    ),
    "top_logprobs of 21": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "seed beyond 64 bits": ({"seed": 2**63}, "seed"),
    "required without tools": ({"tool_choice": "required"}, "tool_choice"),
    "unknown tool": (
        {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "no"}}},
        "tool_choice",
    ),
    "tool of the other type": (
        {"tools": [CLOCK], "tool_choice": {"type": "custom", "custom": {"name": "get_time"}}},
        "tool_choice",
    ),
    "allowed_tools that are none": (
        {"tools": [CLOCK], "tool_choice": {"type": "allowed_tools", "allowed_tools": 3}},
        "tool_choice",
    ),
    "unknown function": (
        {"functions": [{"name": "f"}], "function_call": {"name": "g"}},
        "function_call",
    ),
    "json_schema without one": (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_senseless_member_is_refused(name: str) -> None:
    members, param = REFUSALS[name]

    with pytest.raises(HttpError) as refused:
        read(**members)

    assert (refused.value.status, refused.value.param) == (400, param)


def test_the_tokens_of_one_answer_are_bounded() -> None:
    with pytest.raises(HttpError) as refused:
        parse({"model": "m", "messages": [USER], "n": 128}, tokens=100_000)

    assert refused.value.param == "n"


CHOICES: dict[str, tuple[dict[str, Any], ForcedCall | None]] = {
    "no tools": ({}, None),
    "auto, named in the prompt": ({"tools": [CLOCK, WEATHER]}, CALLED_WEATHER),
    "auto, not named": ({"tools": [CLOCK]}, None),
    "none": ({"tools": [WEATHER], "tool_choice": "none"}, None),
    "required, named in the prompt": (
        {"tools": [CLOCK, WEATHER], "tool_choice": "required"},
        CALLED_WEATHER,
    ),
    "required, not named": ({"tools": [CLOCK, PYTHON], "tool_choice": "required"}, CALLED_CLOCK),
    "function": (
        {
            "tools": [WEATHER, CLOCK],
            "tool_choice": {"type": "function", "function": {"name": "get_time"}},
        },
        CALLED_CLOCK,
    ),
    "custom": (
        {
            "tools": [WEATHER, PYTHON],
            "tool_choice": {"type": "custom", "custom": {"name": "python"}},
        },
        CALLED_PYTHON,
    ),
    "allowed, required": (
        {
            "tools": [WEATHER, CLOCK],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [CLOCK]},
            },
        },
        CALLED_CLOCK,
    ),
    "allowed, auto": (
        {
            "tools": [WEATHER, CLOCK],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [CLOCK]},
            },
        },
        None,
    ),
    "after a tool's result": (
        {
            "tools": [WEATHER],
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": []},
                {"role": "tool", "tool_call_id": "1", "content": "get_weather says: rain"},
            ],
        },
        None,
    ),
    "named in a content part": (
        {
            "tools": [WEATHER],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "call get_weather"}]}
            ],
        },
        CALLED_WEATHER,
    ),
    "function_call by name": (
        {
            "functions": [{"name": "f", "parameters": {"type": "object"}}],
            "function_call": {"name": "f"},
        },
        ForcedCall(kind="function_call", name="f", schema={"type": "object"}),
    ),
    "function_call auto": (
        {"functions": [{"name": "get_weather"}]},
        ForcedCall(kind="function_call", name="get_weather"),
    ),
    "function_call none": ({"functions": [{"name": "get_weather"}], "function_call": "none"}, None),
    "tools of odd shapes": ({"tools": [1, {}, {"type": "function"}, {"type": 3}]}, None),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_tool_choice_decides_the_call(name: str) -> None:
    members, call = CHOICES[name]

    assert read(**members).call == call


def test_every_text_that_a_model_reads_is_found() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "image_url"}, 3]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"type": "custom", "custom": {"name": "c", "input": "three"}},
                {},
                7,
            ],
        },
        {"role": "user", "content": 5},
        {},
    ]

    assert list(texts(messages)) == ["one", "two", "f", "{}", "c", "three"]


@pytest.mark.parametrize(
    ("stop", "read_as"),
    [
        (None, ()),
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ("", ()),
        ([1, "a", ""], ("a",)),
        (7, ()),
    ],
)
def test_stop_is_a_text_or_a_list(stop: object, read_as: tuple[str, ...]) -> None:
    assert read(stop=stop).stop == read_as

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.errors import MOST_VIOLATIONS, Violation
from service.validation import contract
from service.validation.other_forms import in_contract_form
from service.validation.survey import UNTYPED, survey_of
from tests.support.samples import params

IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}
WEATHER = {"type": "function", "function": {"name": "get_weather"}}
PYTHON = {"type": "custom", "custom": {"name": "python"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MARK = {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
ASSISTANT = {"role": "assistant", "content": "Hi"}
TOLD = {"role": "tool", "tool_call_id": "call_1"}
NO_CONTENT: list[dict[str, Any]] = [{}, {"content": None}, {"content": []}, {"content": ""}]

MISSING = "missing_required_parameter"
RANGE = "number_out_of_range"
LONG = "too_long"
TYPE = "invalid_type"
VALUE = "invalid_value"

Found = list[tuple[str, str]]
"""The violations, as pairs of param and code."""


def user(content: Any = "Hello", **members: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **members}


def said(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def choose(choice: Any, *tools: Any) -> dict[str, Any]:
    return {"tool_choice": choice, **({"tools": list(tools)} if tools else {})}


def allow(*tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": list(tools)}}


def schema(**members: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": members}}


ACCEPTED: list[dict[str, Any]] = [
    {},
    # Ranges, at both ends; null is the default.
    *(
        {name: value}
        for name, values in {
            "temperature": (0, 2, 0.7, None),
            "top_p": (0, 1, 0.5, None),
            "n": (1, 128, None),
            "presence_penalty": (-2, 2, None),
            "frequency_penalty": (-2, 2, None),
            "max_tokens": (1, 2**62, None),
            "max_completion_tokens": (1, 2**62, None),
        }.items()
        for value in values
    ),
    # Lengths.
    {"safety_identifier": "x" * 64},
    {"functions": [{"name": "f"}] * 128},
    {"metadata": {str(i): "v" for i in range(16)}},
    {"metadata": {"n" * 64: "v" * 512}},
    {"metadata": {}},
    {"metadata": None},
    {"stop": "x"},
    {"stop": ["a", "b", "c", "d"]},
    {"stop": []},
    {"stop": None},
    # Members that exclude each other, if one is empty or null, or both are equal.
    {"max_tokens": 5, "max_completion_tokens": 5},
    {"max_tokens": 5, "max_completion_tokens": None},
    {"functions": [{"name": "f"}], "tools": []},
    {"functions": None, "tools": [WEATHER]},
    # Messages.
    said(user(), ASSISTANT, user()),
    said({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}, user()),
    said(user([{"type": "text", "text": "x"}, IMAGE])),
    said(user("")),
    # An assistant's message, as an upstream delivered it.
    said({"role": "assistant", "content": None}),
    said({"role": "assistant"}),
    said({"role": "assistant", "content": []}),
    said({"role": "assistant", "content": None, "tool_calls": []}),
    said({"role": "assistant", "content": "x", "tool_calls": [], "refusal": ["x"]}),
    said({"role": "assistant", "content": 5, "annotations": [{"url_citation": "x"}]}),
    said({"role": "assistant", "content": None, "tool_calls": [CALL]}),
    said({"role": "assistant", "tool_calls": [CALL]}),
    said({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}),
    said({"role": "assistant", "content": None, "refusal": "No."}),
    said({"role": "assistant", "content": None, "audio": {"id": "audio_1"}}),
    said({"role": "assistant", "content": None, "reasoning_content": "hm"}),
    said({"role": "assistant", "content": None, "reasoning": "hm"}),
    said(
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3 °C"},
        {"role": "tool", "tool_call_id": "call_1", "content": "again"},
    ),
    # A tool's message, without output.
    *(
        said({"role": "assistant", "tool_calls": [CALL]}, {**TOLD, **content})
        for content in NO_CONTENT
    ),
    # Tool calls without an id, or with a number.
    *(
        said(
            {"role": "assistant", "tool_calls": [{**CALL, "id": made}]},
            {**TOLD, "tool_call_id": told, "content": "x"},
        )
        for made, told in (("", ""), (None, None), ("", None), (7, 7), (7, "7"), ("7", 7))
    ),
    said({"role": "function", "name": "f", "content": None}),
    said({"role": "ipython"}, {"role": "critic", "content": None}),
    # The echo of a response by the SDKs.
    said({**ASSISTANT, "annotations": None, "audio": None, "function_call": None, "x": 1}),
    said({**ASSISTANT, "toolCalls": [], "reasoningContent": "hm"}),
    # Tools.
    {"tools": []},
    {"tools": [WEATHER, PYTHON, {"type": "web_search"}, {"type": "vendor", "x": 1}]},
    {"tools": [{"type": "function", "function": {"name": "github.com/x:y" * 9}}]},
    {"tools": None},
    choose("none"),
    choose("auto"),
    {"tool_choice": "auto", "tools": []},
    {"tool_choice": "none", "tools": []},
    choose(None),
    choose("auto", WEATHER),
    choose("required", WEATHER),
    choose("vendor-mode", WEATHER),
    choose({"type": "function", "function": {"name": "get_weather"}}, PYTHON, WEATHER),
    choose({"type": "custom", "custom": {"name": "python"}}, WEATHER, PYTHON),
    choose({"type": "vendor", "function": {"name": "x"}}, WEATHER),
    choose(allow(WEATHER, PYTHON), WEATHER, PYTHON),
    choose(allow({"type": "mcp", "server_label": "x"}), WEATHER),
    # Formats.
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "structural_tag", "structures": []}},
    {"response_format": None},
    schema(name="Answer-1_x"),
    schema(name="a" * 64, schema={"type": "object"}, strict=None),
    # Log probabilities and biases.
    {"logprobs": True, "top_logprobs": 20},
    {"logprobs": True, "top_logprobs": -1},
    {"top_logprobs": 0},
    {"top_logprobs": None},
    {"logprobs": None},
    {"logit_bias": {"1": -100, "2": 100, "3": 0.5}},
    {"logit_bias": None},
    # Sound.
    {"modalities": ["text"]},
    {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    {"modalities": ["text", "audio"], "audio": {"voice": {"id": "v"}, "format": "wav"}},
    # Four marks for the cache.
    said(user([MARK, MARK]), user([MARK, {"type": "text", "text": "x"}, MARK])),
    # Vendors' members.
    {"reasoning_effort": 3},
    {"reasoning_effort": {"level": "high"}},
    {"top_k": -1, "guided_json": {"a": [None]}, "chat_template_kwargs": {"x": True}},
    {"chat_template_kwargs": {"x": {"chat_template": 1}}, "chat_template_content_format": "auto"},
    {"chat_template_kwargs": "chat_template"},
    {"chat_template_kwargs": None, "x_model": 1, "messagesx": None, "max": 1, "tokens": 2},
    said(user("x", cache_control={"type": "ephemeral"}, prefix=True)),
    said(user([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}])),
    {"stream": None},
    {"stream": True},
    {"stream": False},
    {"seed": -(2**63)},
]

REFUSED: list[tuple[dict[str, Any], Found]] = [
    # Presence.
    ({"model": ...}, [("model", MISSING)]),
    ({"model": None}, [("model", MISSING)]),
    ({"model": ""}, [("model", MISSING)]),
    ({"messages": ...}, [("messages", MISSING)]),
    ({"messages": None}, [("messages", MISSING)]),
    ({"messages": []}, [("messages", "empty_array")]),
    ({"model": ..., "messages": ...}, [("model", MISSING), ("messages", MISSING)]),
    (said({"content": "x"}), [("messages[0].role", MISSING)]),
    (said({"role": None, "content": "x"}), [("messages[0].role", MISSING)]),
    (said({"role": "", "content": "x"}), [("messages[0].role", MISSING)]),
    (said({}), [("messages[0].role", MISSING)]),
    (said(user(), {"role": "user"}), [("messages[1].content", MISSING)]),
    (said(user(None)), [("messages[0].content", MISSING)]),
    (said(user([])), [("messages[0].content", MISSING)]),
    (said({"role": "developer"}), [("messages[0].content", MISSING)]),
    (said({"role": "system", "content": None}), [("messages[0].content", MISSING)]),
    # Answers to tool calls.
    (
        said(user(), {"role": "tool", "content": "x"}),
        [("messages[1].tool_call_id", MISSING)],
    ),
    (
        said({"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": None}),
        [("messages[1].tool_call_id", MISSING)],
    ),
    (
        said({"role": "tool", "content": "x", "tool_call_id": ""}),
        [("messages[0].tool_call_id", MISSING)],
    ),
    (
        said({"role": "tool", "tool_call_id": "call_2", "content": "x"}, user()),
        [("messages[0].tool_call_id", VALUE)],
    ),
    (
        said(
            {"role": "tool", "tool_call_id": "call_1", "content": "x"},
            {"role": "assistant", "tool_calls": [CALL]},
        ),
        [("messages[0].tool_call_id", VALUE)],
    ),
    # Types.
    ({"model": 7}, [("model", TYPE)]),
    ({"model": ["default"]}, [("model", TYPE)]),
    ({"messages": "Hello"}, [("messages", TYPE)]),
    ({"messages": {"role": "user"}}, [("messages", TYPE)]),
    ({"messages": ["Hello"]}, [("messages[0]", TYPE)]),
    ({"messages": [user(), None]}, [("messages[1]", TYPE)]),
    (said({"role": 7, "content": "x"}), [("messages[0].role", TYPE)]),
    (said(user(7)), [("messages[0].content", TYPE)]),
    (said(user({"text": "x"})), [("messages[0].content", TYPE)]),
    (said(user(["x", 7])), [("messages[0].content[1]", TYPE)]),
    (
        said({"role": "tool", "content": "x", "tool_call_id": True}),
        [("messages[0].tool_call_id", TYPE)],
    ),
    (
        said({"role": "tool", "content": "x", "tool_call_id": 7}),
        [("messages[0].tool_call_id", VALUE)],
    ),
    ({"temperature": "hot"}, [("temperature", TYPE)]),
    ({"temperature": True}, [("temperature", TYPE)]),
    ({"n": 1.5}, [("n", TYPE)]),
    ({"n": "1"}, [("n", TYPE)]),
    ({"max_tokens": {}}, [("max_tokens", TYPE)]),
    ({"stream": "true"}, [("stream", TYPE)]),
    ({"stream": 1}, [("stream", TYPE)]),
    ({"stop": 7}, [("stop", TYPE)]),
    ({"stop": ["a", 7]}, [("stop[1]", TYPE)]),
    ({"tools": {}}, [("tools", TYPE)]),
    ({"tools": [7]}, [("tools[0]", TYPE)]),
    ({"response_format": "json"}, [("response_format", TYPE)]),
    ({"metadata": {"a": 1}}, [("metadata", TYPE)]),
    ({"logit_bias": {"1": "x"}}, [("logit_bias", TYPE)]),
    ({"user": 7}, [("user", TYPE)]),
    ({"stream_options": {"include_usage": "yes"}}, [("stream_options.include_usage", TYPE)]),
    ({"seed": 2**63}, [("seed", RANGE)]),
    ({"max_tokens": -(10**30)}, [("max_tokens", RANGE)]),
    # Ranges.
    *(
        ({name: value}, [(name, RANGE)])
        for name, values in {
            "temperature": (-0.001, 2.001, -1),
            "top_p": (-0.001, 1.001),
            "n": (0, 129, -1),
            "presence_penalty": (-2.001, 2.001),
            "frequency_penalty": (-2.001, 2.001),
            "max_tokens": (0, -1),
            "max_completion_tokens": (0, -1),
        }.items()
        for value in values
    ),
    ({"logprobs": True, "top_logprobs": 21}, [("top_logprobs", RANGE)]),
    ({"logprobs": True, "top_logprobs": -2}, [("top_logprobs", RANGE)]),
    # Lengths.
    ({"safety_identifier": "x" * 65}, [("safety_identifier", LONG)]),
    ({"functions": [{"name": "f"}] * 129}, [("functions", LONG)]),
    ({"metadata": {str(i): "v" for i in range(17)}}, [("metadata", LONG)]),
    ({"metadata": {"n" * 65: "v"}}, [("metadata", "string_too_long")]),
    ({"metadata": {"a": "v" * 513, "b": "v" * 513}}, [("metadata", "string_too_long")]),
    ({"stop": ["a", "b", "c", "d", "e"]}, [("stop", LONG)]),
    # Members that exclude each other.
    ({"max_tokens": 5, "max_completion_tokens": 6}, [("max_tokens", VALUE)]),
    ({"functions": [{"name": "f"}], "tools": [WEATHER]}, [("functions", VALUE)]),
    # Tools.
    ({"tools": [{"type": "function"}]}, [("tools[0].function", MISSING)]),
    ({"tools": [{"type": "function", "function": None}]}, [("tools[0].function", MISSING)]),
    ({"tools": [{"type": "function", "function": "f"}]}, [("tools[0].function", TYPE)]),
    ({"tools": [WEATHER, {"function": {"name": "f"}}]}, [("tools[1].type", MISSING)]),
    ({"tools": [{"type": 7}]}, [("tools[0].type", TYPE)]),
    ({"tools": [{"type": "function", "function": {}}]}, [("tools[0].function.name", MISSING)]),
    (
        {"tools": [{"type": "function", "function": {"name": 7}}]},
        [("tools[0].function.name", TYPE)],
    ),
    ({"functions": [{}]}, [("functions[0].name", MISSING)]),
    # The choice of a tool.
    (choose("required"), [("tool_choice", VALUE)]),
    ({"tool_choice": "required", "tools": []}, [("tool_choice", VALUE)]),
    (choose({"type": "function", "function": {"name": "f"}}), [("tool_choice", VALUE)]),
    (
        choose({"type": "function", "function": {"name": "f"}}, WEATHER),
        [("tool_choice.function.name", VALUE)],
    ),
    (choose({"type": "function"}, WEATHER), [("tool_choice.function.name", MISSING)]),
    (
        choose({"type": "function", "function": {"name": "python"}}, WEATHER, PYTHON),
        [("tool_choice.function.name", VALUE)],
    ),
    (
        choose({"type": "custom", "custom": {"name": "get_weather"}}, WEATHER, PYTHON),
        [("tool_choice.custom.name", VALUE)],
    ),
    (
        choose(allow(WEATHER, PYTHON), WEATHER),
        [("tool_choice.allowed_tools.tools[1]", VALUE)],
    ),
    (choose(7, WEATHER), [("tool_choice", TYPE)]),
    # Formats.
    ({"response_format": {}}, [("response_format.type", MISSING)]),
    ({"response_format": {"type": None}}, [("response_format.type", MISSING)]),
    ({"response_format": {"type": 7}}, [("response_format.type", TYPE)]),
    ({"response_format": {"type": "json_schema"}}, [("response_format.json_schema", MISSING)]),
    (schema(schema={}), [("response_format.json_schema.name", MISSING)]),
    (schema(name="a b"), [("response_format.json_schema.name", VALUE)]),
    # Log probabilities and biases.
    ({"top_logprobs": 5}, [("top_logprobs", VALUE)]),
    ({"top_logprobs": 5, "logprobs": False}, [("top_logprobs", VALUE)]),
    ({"logit_bias": {"1": 100.5}}, [("logit_bias", RANGE)]),
    ({"logit_bias": {"1": 0, "2": -101, "3": 101}}, [("logit_bias", RANGE)]),
    # Sound.
    ({"modalities": ["text", "audio"]}, [("audio", MISSING)]),
    ({"modalities": ["audio"], "audio": None}, [("audio", MISSING)]),
    ({"modalities": ["audio"], "audio": 7}, [("audio", TYPE)]),
    # Marks for the cache.
    (said(user([MARK] * 3), user([MARK] * 2)), [("messages", LONG)]),
    # Aliases.
    *(
        ({name: value}, [(meant, VALUE)])
        for name, meant, value in (
            ("MAX_TOKENS", "max_tokens", 4000),
            ("Max_Tokens", "max_tokens", None),
            ("maxTokens", "max_tokens", 4000),
            ("max-tokens", "max_tokens", 4000),
            ("max_to\u212aens", "max_tokens", 4000),
            ("ma\uff58_tokens", "max_tokens", 4000),
            ("max_token\u017f", "max_tokens", 4000),
            ("Model", "model", "expensive"),
            ("N", "n", 5),
            ("\u2115", "n", 5),
            ("Messages", "messages", []),
            ("me\u00dfages", "messages", []),
            ("STREAM_OPTIONS", "stream_options", {}),
            ("Tools", "tools", []),
            ("toolChoice", "tool_choice", "auto"),
        )
    ),
    (
        {"stream_options": {"Include_Usage": False, "x": 1}},
        [("stream_options.include_usage", VALUE)],
    ),
    (said(user(), user("x", Content=[IMAGE])), [("messages[1].content", VALUE)]),
    (said(user("x", toolCalls=[])), [("messages[0].tool_calls", VALUE)]),
    (said({**ASSISTANT, "Content": [IMAGE]}), [("messages[0].content", VALUE)]),
    (
        said(user([{"type": "text", "text": "x"}, {"type": "text", "text": "", "Image_URL": {}}])),
        [("messages[0].content[1].image_url", VALUE)],
    ),
    (
        said(user([{"type": "text", "text": "x", "TYPE": "image_url"}])),
        [("messages[0].content[0].type", VALUE)],
    ),
    # In the order of the tables.
    (
        {"model": ..., "messages": [{}], "temperature": 3, "stop": 7, "logit_bias": {"1": 101}},
        [
            *(("model", MISSING), ("stop", TYPE), ("messages[0].role", MISSING)),
            *(("temperature", RANGE), ("logit_bias", RANGE)),
        ],
    ),
]


def found(members: dict[str, Any], *, streamed: bool = True) -> list[Violation]:
    return contract.violations(in_contract_form(params(**members)), streamed=streamed)


def name(row: Any) -> str | None:
    return json.dumps(row, default=lambda _: "absent")[:60] if isinstance(row, dict) else None


@pytest.mark.parametrize("members", ACCEPTED, ids=name)
def test_what_the_contract_allows_is_accepted(members: dict[str, Any]) -> None:
    assert found(members) == []
    assert found(members, streamed=False) == []


@pytest.mark.parametrize(("members", "violations"), REFUSED, ids=name)
def test_what_the_contract_forbids_is_refused_by_its_path(
    members: dict[str, Any], violations: Found
) -> None:
    assert [(violation.param, violation.code) for violation in found(members)] == violations


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"include_usage": True}, {"include_obfuscation": None}),
        {"continuous_usage_stats": True},
    ],
)
def test_options_of_a_stream_need_a_stream(options: dict[str, Any]) -> None:
    assert found({"stream_options": options}) == []
    assert [(v.param, v.code) for v in found({"stream_options": options}, streamed=False)] == [
        ("stream_options", VALUE)
    ]
    assert found({"stream_options": None}, streamed=False) == []


def test_every_rule_refuses_something_and_every_row_of_its_tables() -> None:
    refused = [in_contract_form(params(**members)) for members, _ in REFUSED]
    idle = [
        rule.__name__
        for rule, _ in contract.RULES
        if not any(list(rule(request)) for request in refused)
    ]

    assert idle == []
    params_at_fault = {param for _, violations in REFUSED for param, _ in violations}
    assert params_at_fault >= contract.RANGES.keys()
    assert params_at_fault >= contract.LENGTHS.keys()
    assert params_at_fault >= {first for first, _ in contract.EXCLUSIVE}
    accepted = {member for members in ACCEPTED for member in members}
    assert accepted >= contract.RANGES.keys() | contract.LENGTHS.keys() | contract.OPEN


def test_every_rule_of_the_module_is_in_the_table() -> None:
    rules = [
        function
        for function in vars(contract).values()
        if callable(function)
        and getattr(function, "__annotations__", {}).keys() == {"params", "return"}
        and function.__name__ not in {"_mistyped_names", "_types", "aliases", "survey_of"}
    ]

    assert set(rules) == {rule for rule, _ in contract.RULES if not isinstance(rule, partial)}


def test_a_rule_finds_nothing_without_the_members_that_it_wants() -> None:
    for rule, about in contract.RULES:
        if about is None or UNTYPED in about:
            continue
        assert about <= set(ChatCompletionParams.DESCRIPTOR.fields_by_name)
        for members in (*ACCEPTED, *(each for each, _ in REFUSED)):
            request = params(**members)
            for field in about:
                request.ClearField(field)  # type: ignore[arg-type]  # a table's string is not a literal
            assert list(rule(request)) == []


CANARY = "canary-7f3a"


def with_canaries(value: Any) -> Any:
    """Put a canary into each string and name that the contract leaves open."""
    match value:
        case str():
            return value + CANARY
        case list():
            return [with_canaries(item) for item in value]
        case dict():
            return {key: with_canaries(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "members",
    [
        *(with_canaries(members) for members, _ in REFUSED),
        {"metadata": {CANARY * 10: "x"}},
        {"metadata": {CANARY: 7}},
        {"logit_bias": {CANARY: 1000}},
        {"logit_bias": {CANARY: CANARY}},
        {"tools": [{"type": "function", "function": {"name": CANARY + "?"}}]},
        {CANARY: [CANARY], "n": CANARY},
        said({"role": "tool", "tool_call_id": "x", "content": CANARY}),
    ],
    ids=name,
)
def test_no_violation_quotes_a_text(members: dict[str, Any]) -> None:
    for violation in found(members, streamed=False):
        if not violation.param.endswith(QUOTED):
            assert CANARY not in repr(violation)


QUOTED = ("tool_call_id", ".name", "tools[0]", "tools[1]")
"""The ends of the paths of names and ids, which a message quotes."""


def test_a_typed_request_has_no_violation_of_types() -> None:
    rules = [rule for rule, about in contract.RULES if about is not None and UNTYPED in about]
    typed = [members for members in ACCEPTED if UNTYPED not in survey_of(params(**members))]

    assert rules
    assert typed
    for rule in rules:
        assert [list(rule(params(**members))) for members in typed] == [[]] * len(typed)


def test_no_more_is_looked_for_than_is_told() -> None:
    looked_at = []

    def rule(_: ChatCompletionParams) -> Iterator[Violation]:
        for number in range(1000):
            looked_at.append(number)
            yield Violation(param="x", message="x.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "_rules_for", lambda _: (rule, rule))
        assert len(found({})) == MOST_VIOLATIONS
    assert len(looked_at) == MOST_VIOLATIONS


def test_messages_are_for_people() -> None:
    said_of: dict[str, list[str]] = {}
    for members, _ in REFUSED:
        for violation in found(members):
            said_of.setdefault(violation.param, []).append(violation.message)

    for param, message in SAID.items():
        assert message in said_of[param]
    for param, violations in said_of.items():
        for message in violations:
            assert f"'{param}'" in message or "Did you mean" in message
            assert message.endswith((".", "?"))


SAID: dict[str, str] = {
    "model": "Missing required parameter: 'model'.",
    "messages": "Invalid 'messages': expected at least 1 message, but got an empty array.",
    "temperature": "Invalid 'temperature': expected a number from 0 to 2, but got 2.001.",
    "max_completion_tokens": "Invalid 'max_completion_tokens': expected a number of at least 1, "
    "but got 0.",
    "safety_identifier": "Invalid 'safety_identifier': expected at most 64 characters, but got 65.",
    "stop": "Invalid type for 'stop': expected a string or an array of strings, but got an "
    "integer.",
    "seed": "Invalid 'seed': expected a 64-bit integer, but got a number out of its range.",
    "tool_choice": "Invalid 'tool_choice': it is only allowed with 'tools'.",
    "functions": "Invalid 'functions': it cannot be set together with 'tools'. Send one of them.",
    "messages[0].tool_call_id": "Invalid 'messages[0].tool_call_id': 'call_2' matches no tool call "
    "in a preceding assistant message.",
    "messages[0].content[1].image_url": "Unknown parameter: 'messages[0].content[1].Image_URL'. "
    "Did you mean 'messages[0].content[1].image_url'?",
    "logit_bias": "Invalid 'logit_bias': expected values from -100 to 100, but got 100.5.",
    "metadata": "Invalid type for 'metadata': expected an object with string values, but got an "
    "object with numbers.",
}
"""A message of some parameters."""

"""The paths of members of a wrong type and of unknown members."""

import json

import pytest

from chatcompletion.openai_json import (
    Mistyped,
    decode_request,
    field_path,
    has_member,
    is_typed,
    member_names,
    mistyped_members,
    unknown_members,
)
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ChatMessage


def _only(document: str) -> Mistyped:
    (found,) = mistyped_members(decode_request(document.encode()))
    return found


@pytest.mark.parametrize(
    ("document", "param", "name", "expected"),
    [
        ('{"model":1}', "model", "model", ("string",)),
        ('{"n":"1"}', "n", "n", ("integer",)),
        ('{"n":1.5}', "n", "n", ("integer",)),
        ('{"n":1e-99999999999999999999}', "n", "n", ("integer",)),
        ('{"top_p":"1"}', "top_p", "top_p", ("number",)),
        ('{"stream":"true"}', "stream", "stream", ("boolean",)),
        ('{"audio":[]}', "audio", "audio", ("object",)),
        ('{"stop":1}', "stop", "stop", ("string", "array of strings")),
        ('{"stop":["a",null]}', "stop[1]", "stop", ("string",)),
        ('{"modalities":[{}]}', "modalities[0]", "modalities", ("string",)),
        ('{"tools":["f"]}', "tools[0]", "tools", ("object",)),
        ('{"tool_choice":true}', "tool_choice", "tool_choice", ("string", "object")),
        ('{"metadata":{"k":1}}', "metadata", "metadata", ("object with string values",)),
        ('{"metadata":"x"}', "metadata", "metadata", ("object with string values",)),
        ('{"logit_bias":{"k":""}}', "logit_bias", "logit_bias", ("object with number values",)),
        (
            '{"messages":[{},{"content":[{"image_url":{"url":7}}]}]}',
            "messages[1].content[0].image_url.url",
            "url",
            ("string",),
        ),
        (
            '{"messages":[{"content":true}]}',
            "messages[0].content",
            "content",
            ("string", "array of objects"),
        ),
    ],
)
def test_a_wrong_type(document: str, param: str, name: str, expected: tuple[str, ...]) -> None:
    received = _only(document).received
    found = Mistyped(
        param=param, name=name, expected=expected, received=received, out_of_range=False
    )
    assert _only(document) == found


@pytest.mark.parametrize(
    ("value", "received"),
    [
        ("1", "integer"),
        ("-0.5", "number"),
        ("1e2", "number"),
        ("true", "boolean"),
        ("{}", "object"),
        ("[1]", "array"),
    ],
)
def test_the_type_of_a_wrong_value_is_named(value: str, received: str) -> None:
    assert _only(f'{{"model":{value}}}').received == received


def test_the_type_of_an_element_is_named() -> None:
    assert _only('{"stop":["a",null]}').received == "null"
    assert _only('{"metadata":{"a":"b","k":1}}').received == "object with numbers"
    assert _only('{"logit_bias":{"k":""}}').received == "object with strings"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("model", "model"),
        ("messages", "messages"),
        ("messages[0].role", "messages[0].role"),
        ("messages[0].content", "messages[0].content_text"),
        ("messages[0].content[1]", "messages[0].content_parts.items[1]"),
        (
            "messages[0].content[1].image_url.url",
            "messages[0].content_parts.items[1].image_url.url",
        ),
        ("messages[2].tool_calls[0].id", "messages[2].tool_calls[0].id"),
        ("stop", "stop_text"),
        ("stop[4]", "stop_list.items[4]"),
        ("tools[0].function.name", "tools[0].function.name"),
        ("tool_choice", "tool_choice_mode"),
        ("tool_choice.function.name", "tool_choice_object.function.name"),
        ("response_format.json_schema.name", "response_format.json_schema.name"),
        ("top_k", 'extra_json["top_k"]'),
        ("messages[0].images", 'messages[0].extra_json["images"]'),
        ("chat_template_kwargs.padding", 'extra_json["chat_template_kwargs.padding"]'),
    ],
)
def test_the_path_of_a_field(path: str, field: str) -> None:
    assert field_path(path) == field


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ('{"seed":9223372036854775808}', "seed"),
        ('{"seed":1e99}', "seed"),
        ('{"seed":1e99999999999999999999}', "seed"),
        ('{"top_p":1e999}', "top_p"),
        ('{"top_p":1e-999}', "top_p"),
        ('{"top_p":9007199254740993}', "top_p"),
        ('{"logit_bias":{"1":0,"2":-1e999}}', "logit_bias"),
    ],
)
def test_out_of_range(document: str, param: str) -> None:
    found = _only(document)
    assert (found.param, found.out_of_range) == (param, True)


@pytest.mark.parametrize(
    "document",
    [
        '{"model":null,"messages":null,"n":null,"stop":null,"audio":null,"metadata":null}',
        '{"messages":[],"tools":[ ],"metadata":{},"logit_bias":{ },"modalities":[]}',
        '{"messages":[{"content":null,"tool_calls":[]}]}',
        '{"model":"\\ud83d","stop":["\\ud83d"],"metadata":{"a":"\\ud83d"}}',
        '{"top_k":"5","stop_text":1,"content":2}',
        '{"n":1.0,"top_p":1,"stop":[]}',
    ],
)
def test_nothing_is_wrong(document: str) -> None:
    assert list(mistyped_members(decode_request(document.encode()))) == []


# ------------------------------------------------------------------------- top-level members


def test_the_names_of_members_are_those_of_json() -> None:
    names = member_names(ChatCompletionParams)

    assert {"model", "stop", "tool_choice", "function_call", "logit_bias"} <= names
    assert not names & {"stop_text", "tool_choice_mode", "extra_json"}
    assert member_names(ChatMessage) >= {"role", "content", "tool_calls"}


@pytest.mark.parametrize(
    ("document", "name", "said"),
    [
        ("{}", "seed", False),
        ('{"seed":0}', "seed", True),
        ('{"seed":null}', "seed", False),
        ('{"seed":"x"}', "seed", True),
        ('{"store":false}', "store", True),
        ('{"stop":"x"}', "stop", True),
        ('{"stop":[]}', "stop", True),
        ('{"tools":[]}', "tools", True),
        ('{"tools":[{}]}', "tools", True),
        ('{"metadata":{"a":"b"}}', "metadata", True),
        ('{"response_format":{}}', "response_format", True),
        ('{"x":0}', "x", True),
        ('{"x":null}', "x", False),
        ('{"\\"x":0}', '"x', True),
        ('{"X":0}', "x", False),
    ],
)
def test_a_member_is_there_unless_it_is_null(document: str, name: str, said: bool) -> None:
    assert has_member(decode_request(document.encode()), name) is said


@pytest.mark.parametrize(
    ("document", "found", "typed"),
    [
        ('{"seed":0,"messages":[{"role":"user","content":"x"}]}', {}, True),
        ('{"seed":null,"messages":[{"content":null,"refusal":null}]}', {}, True),
        ('{"top_k":null}', {}, False),
        ('{"tools":[]}', {}, False),
        ('{"seed":"x"}', {}, False),
        ('{"y":1,"x":{"a":1},"z":null}', {"": ("x", "y")}, False),
        ('{"\\ud83d":1,"\\"q":2}', {"": ('"\\"q"', '"\\ud83d"')}, False),
        ('{"messages":[{"content":"x"},{"content":"x","y":1}]}', {"messages[1]": ("y",)}, False),
        (
            '{"x":1,"messages":[{"content":[{"type":"image_url","image_url":{"url":"u","y":1}}]}]}',
            {"messages[0].content[0].image_url": ("y",), "": ("x",)},
            False,
        ),
        ('{"tools":[{"function":{"parameters":{"x":1}}}]}', {}, True),
        ('{"stream_options":{"x":1}}', {"stream_options": ("x",)}, False),
    ],
)
def test_unknown_members_are_found_where_they_are(
    document: str, found: dict[str, tuple[str, ...]], typed: bool
) -> None:
    params = decode_request(document.encode())

    assert {unknown.path: unknown.names for unknown in unknown_members(params)} == found
    assert list({unknown.path: unknown.owner for unknown in unknown_members(params)}) == list(found)
    assert is_typed(params, params.SerializeToString()) is typed


@pytest.mark.parametrize("text", ["a jazz\n", "z\x02\n", "z" * 20_000])
@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 20_000])
def test_no_text_hides_an_unknown_member(text: str, size: int) -> None:
    members = {"messages": [{"role": "user", "content": text}], "user": text}
    typed = decode_request(json.dumps(members).encode())
    other = decode_request(json.dumps({**members, "x" * size: "y" * size}).encode())

    assert is_typed(typed, typed.SerializeToString())
    assert not is_typed(other, other.SerializeToString())

"""Messages that do not come from JSON, and their canonical form."""

import json
from collections.abc import Callable

import pytest

from chatcompletion.openai_json import (
    DecodeError,
    canonicalize_request,
    clear_member,
    decode_request,
    encode_request,
    is_null,
    mistyped_members,
)
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams


def _request() -> ChatCompletionParams:
    params = ChatCompletionParams(model="m", temperature=0.5, stop_text="s")
    params.messages.add(role="user", content_text="Hi")
    params.tools.add(type="function").function.parameters.text = '{"type":"object"}'
    return params


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("top_k", "5"),
        ("x", "null"),
        ("", "[1.0, 2]"),
        ("n", '"1"'),
        ("seed", "18446744073709551616"),
        ("logit_bias", "{}"),
        ("modalities", "[1]"),
        ("tool_choice", "[]"),
        ('"\\ud83d"', "1"),
        ('"\\"q"', "1"),
        ("function_call", '"\\ud83d"'),
        ("stop_text", '"t"'),
    ],
)
def test_canonical_already(key: str, text: str) -> None:
    params = _request()
    params.extra_json[key] = text
    assert canonicalize_request(params) is params


def test_without_extra_json() -> None:
    params = _request()
    assert canonicalize_request(params) is params
    assert list(mistyped_members(params)) == []


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("n", "2", lambda params: params.n == 2),
        ("n", " 2.0\n", lambda params: params.n == 2),
        ('"n"', "2", lambda params: params.n == 2),
        ('"\\u006e"', "2", lambda params: params.n == 2),
        ("top_p", "1e-1", lambda params: params.top_p == 0.1),
        ("modalities", '["text"]', lambda params: params.modalities == ["text"]),
        ("tool_choice", '{"type":"x"}', lambda params: params.tool_choice_object.type == "x"),
        ("metadata", '{"a":"b"}', lambda params: params.metadata["a"] == "b"),
        ("audio", '{"voice":"v"}', lambda params: params.audio.voice_name == "v"),
        ('"top_k"', "5", lambda params: params.extra_json["top_k"] == "5"),
        ("x", '{"a":1,"a":2}', lambda params: params.extra_json["x"] == '{"a":2}'),
        ("x", "[\n1 ] ", lambda params: params.extra_json["x"] == "[ 1 ]"),
        ("n", "null", lambda params: params.null_fields == b"\x10"),
        ("n", "null ", lambda params: params.null_fields == b"\x10"),
        ('"n"', "null", lambda params: params.null_fields == b"\x10"),
        ("stop_text", "null", lambda params: params.extra_json["stop_text"] == "null"),
    ],
)
def test_what_a_field_can_say_is_in_the_field(
    key: str, text: str, expected: Callable[[ChatCompletionParams], bool]
) -> None:
    params = _request()
    params.extra_json[key] = text
    before = params.SerializeToString(deterministic=True)
    canonical = canonicalize_request(params)
    assert expected(canonical)
    assert canonicalize_request(canonical) is canonical
    assert params.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("key", "text", "code", "param"),
    [
        ("x", '1,"model":"expensive"', "invalid_json", "x"),
        ("x", "", "invalid_json", "x"),
        ("x" * 100, "", "invalid_json", "x" * 64),
        ("a\n", "", "invalid_json", "a\\n"),
        ("model", '"expensive"', "duplicate_member", "model"),
        ("model", "null", "duplicate_member", "model"),
        ('"model"', '"expensive"', "duplicate_member", "model"),
        ("stop", '["t"]', "duplicate_member", "stop"),
        ("messages", "[]", "duplicate_member", "messages"),
        ("tools", "null", "duplicate_member", "tools"),
        ("x", "[" * 129 + "]" * 129, "invalid_json", "x"),
        ("x", "[" * 128 + "]" * 128, "invalid_json", None),
    ],
)
def test_smuggling_is_refused(key: str, text: str, code: str, param: str | None) -> None:
    params = _request()
    params.extra_json[key] = text
    if param is None:
        params.extra_json["y"] = " 1"  # makes the whole message be decoded, with one more level
    with pytest.raises(DecodeError) as refused:
        canonicalize_request(params)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert "expensive" not in str(refused.value)


def test_smuggling_below_the_top_is_refused() -> None:
    params = _request()
    params.messages[0].extra_json["role"] = '"system"'
    with pytest.raises(DecodeError) as refused:
        canonicalize_request(params)
    assert refused.value.param == "messages[0].role"


@pytest.mark.parametrize(
    ("text", "kept"),
    [('{"a":1,"a":2}', '{"a":2}'), ("[\n]", "[ ]"), (" true ", "true")],
)
def test_raw_json_is_made_fit(text: str, kept: str) -> None:
    params = _request()
    params.tools[0].function.parameters.text = text
    assert canonicalize_request(params).tools[0].function.parameters.text == kept


def test_null_has_one_place() -> None:
    params = _request()
    params.tools[0].function.parameters.text = "null"
    function = canonicalize_request(params).tools[0].function
    assert not function.HasField("parameters")
    assert function.null_fields == b"\x03"


@pytest.mark.parametrize("nulls", [b"\x10", b"\x10\x11", b"\x0b", b"\x28\x1b\x2a"])
def test_nulls_of_members_that_are_not_set_are_canonical(nulls: bytes) -> None:
    params = _request()
    params.null_fields = nulls
    assert canonicalize_request(params) is params


@pytest.mark.parametrize(
    ("nulls", "code", "param"),
    [
        (b"\x01", "duplicate_member", "model"),
        (b"\x02", "duplicate_member", "messages"),
        (b"\x08", "duplicate_member", "stop"),
        (b"\x10\x10", "duplicate_member", "n"),
        (b"\x10" * 8_000_000, "duplicate_member", "n"),
        (b"\x00", "invalid_null_field", "null_fields"),
        (b"\x09", "invalid_null_field", "null_fields"),  # the second field of `stop`
        (b"\x0e", "invalid_null_field", "null_fields"),
        (b"\x0f", "invalid_null_field", "null_fields"),
        (b"\x7f", "invalid_null_field", "null_fields"),
        (b"\xff\x01", "invalid_null_field", "null_fields"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_other_nulls_are_refused(nulls: bytes, code: str, param: str) -> None:
    params = _request()
    params.null_fields = nulls
    with pytest.raises(DecodeError) as refused:
        canonicalize_request(params)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_other_nulls_are_refused_by_their_path() -> None:
    params = _request()
    params.messages[0].null_fields = b"\x63"
    with pytest.raises(DecodeError) as refused:
        canonicalize_request(params)
    assert refused.value.param == "messages[0].null_fields"


def test_a_null_is_in_one_place() -> None:
    params = _request()
    params.null_fields = b"\x10"
    params.extra_json["n"] = "null"
    with pytest.raises(DecodeError) as refused:
        canonicalize_request(params)
    assert (refused.value.code, refused.value.param) == ("duplicate_member", "n")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"stop":null}', "stop"),
        ('{"stop":"s"}', "stop"),
        ('{"stop":["s"]}', "stop"),
        ('{"stop":1}', "stop"),
        ('{"max_tokens":null,"n":null}', "max_tokens"),
        ('{"tools":[{}]}', "tools"),
        ("{}", "n"),
    ],
)
def test_a_member_is_cleared_wherever_it_stands(body: str, name: str) -> None:
    params = decode_request(body.encode())
    was_null = is_null(params, name)
    clear_member(params, name)
    rest = json.loads(body)
    is_there = name in rest
    assert was_null == (is_there and rest.pop(name) is None)
    rest.pop(name, None)
    assert json.loads(encode_request(params)) == rest


@pytest.mark.parametrize("text", ["", "{", "1,2", '{"a":1}}', "NaN"])
def test_raw_json_that_is_none_is_refused(text: str) -> None:
    params = _request()
    params.tools[0].function.parameters.text = text
    with pytest.raises(DecodeError) as refused:
        canonicalize_request(params)
    assert refused.value.code == "invalid_json"
    assert refused.value.param == "tools[0].function.parameters"

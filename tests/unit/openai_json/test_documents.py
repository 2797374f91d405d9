"""Documents other than requests, completions and chunks, and errors of encoding."""

from typing import Any

import pytest

from chatcompletion.openai_json import (
    DecodeError,
    EncodeError,
    decode_error,
    decode_model,
    decode_model_list,
    decode_request,
    encode_completion,
    encode_error,
    encode_model,
    encode_model_list,
    encode_request,
)
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion, ChatCompletionParams
from chatcompletion.v1.error_pb2 import ApiError
from chatcompletion.v1.model_service_pb2 import ListModelsResponse, Model


def test_an_error_has_its_four_members() -> None:
    assert encode_error(ApiError(message="m", type="t")) == (
        b'{"error":{"message":"m","type":"t","param":null,"code":null}}'
    )
    assert encode_error(ApiError(code_number=0)) == (
        b'{"error":{"message":null,"type":null,"param":null,"code":0}}'
    )


def test_an_error_keeps_its_other_members() -> None:
    body = b'{"error":{"message":"m","type":null,"param":7,"code":"c","extra":{"a":1.0}}}'
    assert encode_error(decode_error(body)) == body


def test_members_beside_the_error_are_left_out() -> None:
    error = decode_error(b'{"error":{"message":"m"},"request_id":"r"}')
    assert error == ApiError(message="m")


def test_an_error_with_half_a_surrogate_pair() -> None:
    error = decode_error(b'{"error":{"message":"\\ud83d","type":"t"}}')
    assert error.extra_json["message"] == '"\\ud83d"'
    assert error.type == "t"
    assert b'"message":"\\ud83d"' in encode_error(error)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b'{"error":"text"}', "invalid_type", "error"),
        (b'{"error":null}', "invalid_type", "error"),
        (b'{"error":"\\ud83d"}', "invalid_type", "error"),
        (b'{"detail":[]}', "invalid_type", "error"),
        (b"[]", "invalid_type", None),
        (b"<html>", "invalid_json", None),
        (b"", "invalid_json", None),
    ],
)
def test_bodies_that_are_no_errors(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_error(body)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_models() -> None:
    body = b'{"id":"a/b:c","object":"model","created":0,"owned_by":"","permission":[]}'
    assert encode_model(decode_model(body)) == body
    listed = b'{"object":"list","data":[' + body + b"]}"
    assert encode_model_list(decode_model_list(listed)) == listed


def test_a_list_of_no_models_has_its_data() -> None:
    empty = ListModelsResponse(object="list")
    assert encode_model_list(empty) == b'{"object":"list","data":[]}'
    assert encode_model_list(decode_model_list(b'{"object":"list","data":[]}')) == (
        b'{"object":"list","data":[]}'
    )
    assert encode_model_list(ListModelsResponse(data=[Model(id="a")])) == b'{"data":[{"id":"a"}]}'


def test_empty_messages_are_empty_objects() -> None:
    assert encode_request(ChatCompletionParams()) == b"{}"
    assert encode_model(Model()) == b"{}"


def _tampered(path: str, key: str, text: str) -> ChatCompletion:
    completion = ChatCompletion(id="i")
    completion.choices.add(index=0).message.content_text = "secret"
    completion.choices.add(index=1).logprobs.content.add(token="t")
    places: dict[str, Any] = {
        "": completion,
        "choices[0].message": completion.choices[0].message,
        "choices[1].logprobs.content[0]": completion.choices[1].logprobs.content[0],
    }
    places[path].extra_json[key] = text
    return completion


@pytest.mark.parametrize(
    ("path", "key", "text", "code", "param"),
    [
        ("", "id", '"j"', "duplicate_member", "id"),
        ("", '"id"', '"j"', "duplicate_member", "id"),
        ("", "id", "null", "duplicate_member", "id"),
        ("", "choices", "[]", "duplicate_member", "choices"),
        ("", "named", "secret,2", "invalid_json", "named"),
        ("", '"secret', "1", "invalid_json", "extra_json"),
        ("", "model", "", "invalid_json", "model"),
        ("choices[0].message", "content", '"x"', "duplicate_member", "choices[0].message.content"),
        ("choices[0].message", "x", "secret", "invalid_json", "choices[0].message.x"),
        (
            "choices[1].logprobs.content[0]",
            "token",
            "null",
            "duplicate_member",
            "choices[1].logprobs.content[0].token",
        ),
    ],
)
def test_a_smuggled_member_is_named_by_its_path(
    path: str, key: str, text: str, code: str, param: str
) -> None:
    with pytest.raises(EncodeError) as unwritable:
        encode_completion(_tampered(path, key, text))
    assert (unwritable.value.code, unwritable.value.param) == (code, param)
    assert "secret" not in str(unwritable.value)


@pytest.mark.parametrize("content", ["Hello", r"cut \ud83d"], ids=["whole", "half of a pair"])
def test_of_duplicates_the_last_counts(content: str) -> None:
    message = f'{{"role":"system","role":"user","content":"{content}"}}'
    document = f'{{"model":"first","messages":[{message}],"model":"last","n":1,"n":2}}'
    params = decode_request(document.encode())
    assert (params.model, params.n) == ("last", 2)
    assert params.messages[0].role == "user"

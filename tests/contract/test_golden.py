"""The golden pairs, walked in both directions."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from chatcompletion.v1.error_pb2 import ApiError
from tests.support.golden import Golden, MistypedGolden
from tests.support.golden_requests import MISTYPED, REQUESTS
from tests.support.golden_responses import CHUNKS, COMPLETIONS, ERRORS
from tests.support.json_equality import parse

Kind = tuple[tuple[Golden, ...], type[Message], Callable[[bytes], Message], Callable[[Any], bytes]]

KINDS: tuple[Kind, ...] = (
    (REQUESTS, ChatCompletionParams, openai_json.decode_request, openai_json.encode_request),
    (COMPLETIONS, ChatCompletion, openai_json.decode_completion, openai_json.encode_completion),
    (CHUNKS, ChatCompletionChunk, openai_json.decode_chunk, openai_json.encode_chunk),
    (ERRORS, ApiError, openai_json.decode_error, openai_json.encode_error),
)


PAIRS = [
    pytest.param(
        row,
        text_format.Parse(row.message, message()),
        decode,
        encode,
        id=f"{message.__name__}: {row.name}",
    )
    for rows, message, decode, encode in KINDS
    for row in rows
]


@pytest.mark.parametrize(("row", "message", "decode", "encode"), PAIRS)
def test_document_is_read_as_its_message(
    row: Golden,
    message: Message,
    decode: Callable[[bytes], Message],
    encode: Callable[[Any], bytes],
) -> None:
    assert decode(row.json.encode()) == message


@pytest.mark.parametrize(("row", "message", "decode", "encode"), PAIRS)
def test_message_is_written_as_its_document(
    row: Golden,
    message: Message,
    decode: Callable[[bytes], Message],
    encode: Callable[[Any], bytes],
) -> None:
    written = encode(message)
    assert parse(written) == parse(row.json)
    assert b"\n" not in written
    assert b"\r" not in written


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
def test_request_that_was_read_is_canonical(row: Golden) -> None:
    params = openai_json.decode_request(row.json.encode())
    assert openai_json.canonicalize_request(params) is params
    assert list(openai_json.mistyped_members(params)) == []


@pytest.mark.parametrize("row", MISTYPED, ids=lambda row: row.name)
def test_members_of_a_wrong_type_are_named(row: MistypedGolden) -> None:
    params = openai_json.decode_request(row.json.encode())
    assert openai_json.canonicalize_request(params) is params
    found = list(openai_json.mistyped_members(params))
    assert tuple(sorted(member.param for member in found)) == row.params
    assert all(member.out_of_range is row.out_of_range for member in found)
    assert parse(openai_json.encode_request(params)) == parse(row.json)


def test_names_tell_the_rows_apart() -> None:
    for rows in (REQUESTS, COMPLETIONS, CHUNKS, ERRORS, MISTYPED):
        assert len({row.name for row in rows}) == len(rows)
    assert sum(map(len, (REQUESTS, COMPLETIONS, CHUNKS, ERRORS))) >= 60

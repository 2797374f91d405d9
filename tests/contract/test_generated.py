"""The codec on generated documents and messages: nothing is lost in either direction.

The judge of the documents is `json_equality`, which shares no code with the codec; that of the
messages is protobuf's own comparison.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion import openai_json
from chatcompletion.openai_json.documents import SHAPES
from chatcompletion.openai_json.shapes import Shape
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from tests.contract.generated import documents, messages, tampered_messages
from tests.support.examples import examples
from tests.support.json_equality import parse

pytestmark = pytest.mark.time_limit(300)

REQUEST = SHAPES[ChatCompletionParams.DESCRIPTOR.full_name]
COMPLETION = SHAPES[ChatCompletion.DESCRIPTOR.full_name]
CHUNK = SHAPES[ChatCompletionChunk.DESCRIPTOR.full_name]

CODECS: dict[str, tuple[Shape, Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    "request": (REQUEST, openai_json.decode_request, openai_json.encode_request),
    "completion": (COMPLETION, openai_json.decode_completion, openai_json.encode_completion),
    "chunk": (CHUNK, openai_json.decode_chunk, openai_json.encode_chunk),
}


@pytest.mark.parametrize("noun", CODECS)
@examples(3_500)
@given(data=st.data())
def test_document_survives(noun: str, data: st.DataObject) -> None:
    shape, decode, encode = CODECS[noun]
    document = data.draw(documents(shape))
    message = decode(document.encode())
    written = encode(message)
    assert parse(written) == parse(document)
    assert b"\n" not in written
    assert b"\r" not in written
    assert decode(written) == message


@pytest.mark.parametrize("noun", CODECS)
@examples(3_500)
@given(data=st.data())
def test_message_survives(noun: str, data: st.DataObject) -> None:
    shape, decode, encode = CODECS[noun]
    message = data.draw(messages(shape))
    written = encode(message)
    parse(written)
    assert decode(written) == message


@pytest.mark.parametrize("noun", CODECS)
@examples(500)
@given(data=st.data())
def test_half_a_surrogate_pair_changes_nothing_else(noun: str, data: st.DataObject) -> None:
    shape, decode, _ = CODECS[noun]
    document = data.draw(documents(shape))
    separator = "," if ":" in document else ""
    cut = decode((document[:-1] + separator + '"cut":"\\ud83d"}').encode())
    assert cut.extra_json.pop("cut") == '"\\ud83d"'
    assert cut == decode(document.encode())


@examples(1_000)
@given(params=messages(REQUEST))
def test_canonical_request_is_itself(params: ChatCompletionParams) -> None:
    assert openai_json.canonicalize_request(params) is params


@examples(2_000)
@given(params=tampered_messages(REQUEST))
def test_tampered_request_is_made_canonical_or_refused(params: ChatCompletionParams) -> None:
    before = params.SerializeToString(deterministic=True)
    refused = None
    try:
        canonical = openai_json.canonicalize_request(params)
    except openai_json.DecodeError as error:
        refused = error
    if refused is not None:
        assert refused.code in {"invalid_json", "duplicate_member"}
        assert refused.param is not None
    else:
        written = openai_json.encode_request(canonical)
        assert parse(written) == parse(openai_json.encode_request(params))
        assert openai_json.decode_request(written) == canonical
        assert openai_json.canonicalize_request(canonical) is canonical
    assert params.SerializeToString(deterministic=True) == before

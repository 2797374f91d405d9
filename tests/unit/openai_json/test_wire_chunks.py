"""Serialized messages that differ only in their text are read and written as any message is."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion.openai_json import TextChunk, WireChunks, decode_chunk, encode_chunk
from chatcompletion.openai_json.text_chunks import Template
from chatcompletion.openai_json.wire_form import WireForm
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionChunk
from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionResponse
from tests.support.examples import examples
from tests.support.golden_responses import CHUNKS

EDGES = (0, 1, 16, 17, 100, 101, 126, 127, 128, 129, 16_382, 16_383, 16_384, 16_385)
"""Sizes of texts around those where a size takes another byte."""


def message(text: str, **members: Any) -> StreamChatCompletionResponse:
    """Return a message whose chunk has a text and other members."""
    document = {
        "id": "1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
        "usage": None,
        "x": 1,
        "y": 2,
        **members,
    }
    return StreamChatCompletionResponse(chunk=decode_chunk(json.dumps(document).encode()))


def serialized(*messages: StreamChatCompletionResponse) -> list[bytes]:
    return [each.SerializeToString(deterministic=True) for each in messages]


def read(data: Iterable[bytes]) -> int:
    """Read messages, compare each with the parsed one, and return how many were repetitions."""
    wire, repetitions = WireChunks(), 0
    for each in data:
        parsed = StreamChatCompletionResponse.FromString(each)
        found = wire.read(each)
        if isinstance(found, TextChunk):
            repetitions += 1
            assert StreamChatCompletionResponse(chunk=found.chunk) == parsed
            assert found.encode() == encode_chunk(parsed.chunk)
            assert found.serialize() == each
        else:
            assert found == parsed
    return repetitions


def test_from_the_second_message_on_they_are_repetitions() -> None:
    assert read(serialized(*map(message, ("a", "b", "", '"\\', "é\n", "\0", "x" * 300)))) == 6


@pytest.mark.parametrize("members", [0, 10, 57, 58, 59, 60, 100, 16_300])
def test_texts_of_every_size_are_written_as_any(members: int) -> None:
    form = WireForm(message("any", id="i" * members).chunk)
    for size in (*EDGES, *(range(200) if members < 1000 else ())):
        for text in ("x" * size, "é" * (size // 2)):
            (expected,) = serialized(message(text, id="i" * members))
            assert form.write(text) == expected
            assert form.text_of(expected) == text


def test_a_template_writes_more_sizes_than_it_keeps() -> None:
    form = WireForm(message("any").chunk)
    for size in (*range(200), *range(200)):
        (expected,) = serialized(message("x" * size))
        assert form.write("x" * size) == expected
        assert form.text_of(expected) == "x" * size


def _with(field: str) -> StreamChatCompletionResponse:
    other = message("b")
    if field == "resume_token":
        other.resume_token = "h-1"
    else:
        other.charge.hold_id = "h"
    return other


@pytest.mark.parametrize(
    "other",
    [
        message("b", id="2"),
        message("b", x=3),
        message("b", z=4),
        message("b", usage={"prompt_tokens": 1}),
        message("b", choices=[]),
        message("b", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
        message("b", choices=[{"index": 0, "delta": {"content": [{"type": "text"}]}}]),
        message("b", choices=[{"index": 0, "delta": {"role": "r", "content": "b"}}]),
        message("b", choices=[{"index": i, "delta": {"content": "b"}} for i in (0, 1)]),
        _with("resume_token"),
        _with("charge"),
        StreamChatCompletionResponse(),
    ],
)
def test_any_other_message_is_parsed(other: StreamChatCompletionResponse) -> None:
    first, last = serialized(message("a"), message("c"))
    (odd,) = serialized(other)
    wire = WireChunks()
    wire.read(first)

    assert wire.read(odd) == other
    assert read([first, odd, odd, last]) in (1, 2)  # two of the odd ones can be repetitions


def _changed(data: bytes, place: int, byte: int) -> bytes:
    return data[:place] + bytes((byte,)) + data[place + 1 :]


def test_a_message_with_any_other_byte_is_read_as_it_is_parsed() -> None:
    first, data = serialized(message("a"), message("bcd"))
    for place in range(len(data)):
        for byte in (0, 1, data[place] ^ 1, data[place] ^ 0x80, 0xFF):
            other = _changed(data, place, byte)
            wire = WireChunks()
            wire.read(first)
            try:
                parsed = StreamChatCompletionResponse.FromString(other)
            except DecodeError:
                with pytest.raises(DecodeError):
                    wire.read(other)
                continue
            found = wire.read(other)
            assert StreamChatCompletionResponse(chunk=found.chunk).chunk == parsed.chunk
            if isinstance(found, TextChunk):
                assert found.serialize() == other
                assert not parsed.resume_token


def test_fields_of_a_later_contract_are_kept() -> None:
    unknown = b"\xfa\x3f\x01x"  # field 1023, one byte
    first, second = serialized(message("a"), message("b"))
    wire = WireChunks()

    found = wire.read(first + unknown)
    assert isinstance(found, StreamChatCompletionResponse)
    assert serialized(found) == [first + unknown]
    assert isinstance(wire.read(second + unknown), StreamChatCompletionResponse)
    assert read([first, second, second + unknown, second]) == 2


def test_a_stream_without_a_pattern_soon_costs_no_more_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []

    def counted(chunk: ChatCompletionChunk) -> Template:
        made.append(chunk)
        return Template(chunk)

    monkeypatch.setattr("chatcompletion.openai_json.wire_chunks.Template", counted)
    data = serialized(*(message("a", id=str(number)) for number in range(40)))

    assert read(data) == 0
    assert len(made) == 8


def test_a_large_message_neither_is_a_pattern_nor_follows_one() -> None:
    small, large = (serialized(*(message(text * n) for text in "abc")) for n in (1, 5000))

    assert read(large) == 0
    assert read([*small, *large]) == 2
    assert read([*large, *small]) == 2


TEXTS = st.text(max_size=200) | st.sampled_from(["0", "1", "00", "\0", "\n\x01", "x" * 127])


@examples(300)
@given(st.sampled_from(CHUNKS), st.lists(TEXTS, min_size=3, max_size=6), st.booleans())
def test_golden_chunks_with_other_texts_are_read_and_written_alike(
    golden: Any, contents: Sequence[str], deterministic: bool
) -> None:
    document = json.loads(golden.json)
    choices = [each for each in document.get("choices") or () if isinstance(each, dict)]
    if choices and isinstance(choices[0].get("delta"), dict):
        data = []
        for content in contents:
            choices[0]["delta"]["content"] = content
            chunk = decode_chunk(json.dumps(document).encode())
            response = StreamChatCompletionResponse(chunk=chunk)
            data.append(response.SerializeToString(deterministic=deterministic))
        read(data)

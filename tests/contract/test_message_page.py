"""docs/messages.md: each example is the same document as JSON and as a message.

JSON -> the transcoder -> the message on the page -> the transcoder -> JSON
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatMessage,
    ChatMessageDelta,
    ContentPart,
    ResponseFormat,
    Tool,
    ToolCall,
)
from tests.support.json_equality import parse
from tests.support.tree import ROOT

PAGE: Final = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
PAIR: Final = re.compile(
    r"<!-- (\w+) -->\n```json\n(.*?)```\n\n```textproto\n(.*?)```\n", re.DOTALL
)
PAIRS: Final = PAIR.findall(PAGE)
OMITTED: Final = frozenset[str]()
"""Fields that no example has."""
HELLO: Final = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of example: a part of a document."""

    document: Callable[[Any], Any]
    """Returns the document with an example."""
    part: Callable[[Any], Any]
    """Returns the example of a document."""
    message: Callable[[Any], Message]
    """Returns the message of the example in the message of a document."""
    decode: Callable[[bytes], Message]
    encode: Callable[[Any], bytes]


REQUEST: Final[dict[str, Any]] = {
    "decode": openai_json.decode_request,
    "encode": openai_json.encode_request,
}
COMPLETION: Final[dict[str, Any]] = {
    "decode": openai_json.decode_completion,
    "encode": openai_json.encode_completion,
}
CHUNK: Final[dict[str, Any]] = {
    "decode": openai_json.decode_chunk,
    "encode": openai_json.encode_chunk,
}


def whole(value: Any) -> Any:
    return value


def choice(params: Any) -> Any:
    """Return parameters with the choice of a tool alone."""
    params.ClearField("model")
    params.ClearField("messages")
    return params


KINDS: Final[dict[str, Kind]] = {
    "params": Kind(document=whole, part=whole, message=whole, **REQUEST),
    "completion": Kind(document=whole, part=whole, message=whole, **COMPLETION),
    "chunk": Kind(document=whole, part=whole, message=whole, **CHUNK),
    "error": Kind(
        document=whole,
        part=whole,
        message=whole,
        decode=openai_json.decode_error,
        encode=openai_json.encode_error,
    ),
    "message": Kind(
        document=lambda one: {"model": "m", "messages": [one]},
        part=lambda found: found["messages"][0],
        message=lambda params: params.messages[0],
        **REQUEST,
    ),
    "tool": Kind(
        document=lambda one: {**HELLO, "tools": [one]},
        part=lambda found: found["tools"][0],
        message=lambda params: params.tools[0],
        **REQUEST,
    ),
    "tool_choice": Kind(
        document=lambda one: {**HELLO, "tool_choice": one},
        part=lambda found: found["tool_choice"],
        message=choice,
        **REQUEST,
    ),
    "answer": Kind(
        document=lambda one: {"choices": [{"message": one}]},
        part=lambda found: found["choices"][0]["message"],
        message=lambda completion: completion.choices[0].message,
        **COMPLETION,
    ),
    "delta": Kind(
        document=lambda one: {"choices": [{"delta": one}]},
        part=lambda found: found["choices"][0]["delta"],
        message=lambda chunk: chunk.choices[0].delta,
        **CHUNK,
    ),
}


def decode(kind: str, example: Any) -> Message:
    """Return the message of an example."""
    found = KINDS[kind]
    text = json.dumps(found.document(example), ensure_ascii=False)
    return found.message(found.decode(text.encode()))


@pytest.mark.parametrize(("kind", "text", "message"), PAIRS, ids=range(len(PAIRS)))
def test_the_json_is_the_message_and_the_message_is_the_json(
    kind: str, text: str, message: str
) -> None:
    found = KINDS[kind]
    example = json.loads(text)
    document = found.decode(json.dumps(found.document(example)).encode())
    shown = found.message(document)
    parsed = text_format.Parse(message, type(shown)())
    assert shown == parsed

    # The other way: the message of the page, in the place of the decoded one.
    shown.Clear()
    shown.CopyFrom(parsed)
    encoded = json.dumps(found.part(json.loads(found.encode(document))))
    assert parse(encoded) == parse(text)


def test_there_is_an_example_of_each_kind_of_content() -> None:
    shown = {name for _, _, message in PAIRS for name in re.findall(r"(\w+) ?[:{]", message)}
    for kind in (ContentPart, ChatMessage, ChatMessageDelta, ResponseFormat, Tool, ToolCall):
        fields = {field.name for field in kind.DESCRIPTOR.fields}
        assert fields - shown <= OMITTED, kind.DESCRIPTOR.name
    assert {kind for kind, _, _ in PAIRS} == set(KINDS)

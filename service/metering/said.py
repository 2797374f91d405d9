"""How much the model wrote in a message, or in a piece of one."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from chatcompletion.v1.chat_completion_pb2 import (
    ChatMessage,
    ChatMessageDelta,
    ContentPartList,
    FunctionCall,
    MessageAudio,
    ToolCall,
)
from service import tokens


def said(message: ChatMessageDelta | ChatMessage) -> int:
    """Return about how many bytes of text the model wrote in a message, or in a piece of one.

    0 is nothing at all: what says something without a text of its own counts as a byte. Sound
    counts as text of as many tokens. The role is not the model's.
    """
    text = message.content_text
    size = len(text) if text.isascii() else len(text.encode())
    # Most pieces are a content and nothing else: on the wire, 2 or 3 bytes around a short one.
    if message.ByteSize() - size <= (3 if size else 2):
        return size
    size = 0
    for member, value in message.ListFields():
        measure = _WRITTEN.get(member.name)
        if measure is not None:
            size += measure(value)
    if size:
        # Vendors say in members of their own once more what stands in the others.
        return size
    annotated = sum(annotation.ByteSize() for annotation in message.annotations)
    return annotated + _unknown(message.extra_json)


def _text(text: str) -> int:
    return len(text.encode())


def _parts(parts: ContentPartList) -> int:
    return sum(_text(part.text) + _text(part.refusal) or part.ByteSize() for part in parts.items)


def _function(call: FunctionCall) -> int:
    return _text(call.name) + _text(call.arguments) or min(call.ByteSize(), 1)


def _calls(calls: Iterable[ToolCall]) -> int:
    size = 0
    for call in calls:
        if call.HasField("function"):
            size += _function(call.function) or 1
        else:
            custom = _text(call.custom.name) + _text(call.custom.input)
            size += custom or _unknown(call.extra_json) or 1
    return size


def _sound(audio: MessageAudio) -> int:
    heard = tokens.BYTES_PER_TOKEN * tokens.of_sound(len(audio.data))
    return heard + _text(audio.transcript) or 1


_WRITTEN: Final[Mapping[str, Callable[[Any], int]]] = {
    "content_text": _text,
    "content_parts": _parts,
    "tool_calls": _calls,
    "refusal": _text,
    "audio": _sound,
    "function_call": _function,
    "reasoning_content": _text,
    "reasoning": _text,
}
"""What in a message the model wrote, and its bytes."""


def _unknown(extra: Mapping[str, str]) -> int:
    """Return the bytes of members that the contract does not know, or that have another type.

    A content of another type is a piece of a character that the upstream cut in two.
    """
    return sum(_text(extra[name]) for name in extra if extra[name] not in _NOTHING)


_NOTHING: Final = frozenset({"null", '""', "[]", "{}"})

"""How much the model wrote in a message or in a piece of one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from chatcompletion.v1.chat_completion_pb2 import (
    ChatMessage,
    ChatMessageDelta,
    ContentPart,
    ContentPartList,
    FunctionCall,
    MessageAudio,
    ToolCall,
)
from service.metering import tokens

Said: TypeAlias = tuple[int, int, bool]
"""The bytes that the model wrote, those of them that every upstream counts against the limit, and
whether they include a tool or function call. A plain tuple, because one is made per chunk."""


def said(message: ChatMessageDelta | ChatMessage) -> Said:
    """Return about how many bytes of text the model wrote in a message or in a piece of one.

    A piece with content other than text counts as at least one byte; 0 means no content. Sound
    counts as text with the same number of tokens. The role does not count.

    The second value excludes reasoning, sound and unknown members. Some upstreams do not count
    reasoning or sound against the limit, and send several pieces of sound per token; an unknown
    member can be reasoning or a picture.
    """
    text = message.content_text
    size = len(text) if text.isascii() else len(text.encode())
    # Most pieces have only a content: on the wire, 2 or 3 bytes more than a short text.
    if message.ByteSize() - size <= (3 if size else 2) or tokens.is_text(
        message, message.role, text
    ):
        return size, size, False
    size, thought, calls, reasoning = 0, 0, False, ""
    for member, value in message.ListFields():
        name = member.name
        measure = _ANSWER.get(name)
        if measure is not None:
            size += measure(value)
            if name in _CALLS:
                calls = True
        elif name in _REASONING:
            # Upstreams that use both names send the same text under both.
            if value != reasoning:
                thought += _text(value)
            reasoning = value
        elif name == "audio":
            spoken = _text(value.transcript)
            size += spoken
            thought += _heard(value) or (0 if spoken else 1)
        elif name == "content_parts":
            size += _parts(value)
            thought += _beside(value)
    if size + thought:
        # Vendors repeat the reasoning in members of their own.
        return size + thought, size, calls
    annotated = sum(annotation.ByteSize() for annotation in message.annotations)
    return annotated + _unknown(message.extra_json), 0, calls


def is_text_alone(delta: ChatMessageDelta) -> bool:
    """Return whether a piece has only a role, a text and nulls, so that its text alone counts."""
    return _TEXT_ALONE.issuperset(member.name for member, _ in delta.ListFields())


def names(delta: ChatMessageDelta) -> Iterator[tuple[int, str, str]]:
    """Yield the index, id and name of each call in a piece; the index of a function call is -1."""
    for call in delta.tool_calls:
        name = call.function.name if call.HasField("function") else call.custom.name
        if name:
            yield call.index, call.id, name
    if delta.function_call.name:
        yield -1, "", delta.function_call.name


def texts(message: ChatMessageDelta | ChatMessage) -> Iterator[str]:
    """Yield the texts that the model wrote, without the names of calls."""
    reasoning = ""
    for member, value in message.ListFields():
        name = member.name
        if name in _PLAIN:
            yield value
        elif name in _REASONING:
            if value != reasoning:
                yield value
            reasoning = value
        elif name == "content_parts":
            yield from (part.text for part in value.items)
        elif name == "tool_calls":
            yield from (call.function.arguments or call.custom.input for call in value)
        elif name == "function_call":
            yield value.arguments
        elif name == "audio":
            yield value.transcript


def _text(text: str) -> int:
    return len(text.encode())


def _parts(parts: ContentPartList) -> int:
    return sum(_text(part.text) + _text(part.refusal) for part in parts.items if _answers(part))


def _beside(parts: ContentPartList) -> int:
    return sum(part.ByteSize() for part in parts.items if not _answers(part))


def _answers(part: ContentPart) -> bool:
    """Return whether a part is text of the response, not reasoning, a picture or empty."""
    return part.type not in _THOUGHTS and bool(part.text or part.refusal)


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


def _heard(audio: MessageAudio) -> int:
    return tokens.BYTES_PER_TOKEN * tokens.of_sound(len(audio.data))


_ANSWER: Final[Mapping[str, Callable[[Any], int]]] = {
    "content_text": _text,
    "tool_calls": _calls,
    "refusal": _text,
    "function_call": _function,
}
"""The fields of a message that count as output, each with a function that returns its bytes."""

_PLAIN: Final = frozenset({"content_text", "refusal"})
_TEXT_ALONE: Final = frozenset({"role", "content_text", "null_fields"})
_CALLS: Final = frozenset({"tool_calls", "function_call"})
_REASONING: Final = frozenset({"reasoning", "reasoning_content"})
_THOUGHTS: Final = frozenset({"thinking", "reasoning"})
"""The types of parts in which vendors send reasoning."""


def _unknown(extra: Mapping[str, str]) -> int:
    """Return the bytes of unknown members and of members with another type.

    The same value under several names counts once. A content with another type is a part of a
    character that the upstream cut in two.
    """
    return sum(_text(text) for text in {extra[name] for name in extra} - _NOTHING)


_NOTHING: Final = frozenset({"null", '""', "[]", "{}"})

"""Limits on the number of entries in a request. They run before all other rules.

    crowd(params) -> None, or the violation of the member with too many entries

The parameters can be canonical or not.
"""

from collections.abc import Callable, Iterator, Mapping, Sized
from itertools import chain
from typing import Any, Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.errors import Violation
from service.validation.wording import too_long

MOST: Final = 4096
"""Maximum messages, content parts, tools and tool calls in a request, of each kind in total. Each
takes some 10 µs of the event loop; the longest conversations have some hundreds."""

_MOST_BRACES: Final = 16 * MOST

_SMALL: Final = 2 * min(MOST, openai_json.MAX_UNKNOWN)
"""Bytes of a message that hold no crowd: each entry of one takes at least two."""

MOST_BIASES: Final = 32_768
"""Maximum entries of logit_bias, at some 0.5 µs each: an eighth of the largest vocabulary."""


def crowd(params: ChatCompletionParams, size: int | None = None) -> Violation | None:
    """Return the violation of a member with too many entries, or None.

    The check is cheap for any request. `openai_json.check_size` limits the text in `extra_json`.

    Args:
        params: The parameters, canonical or not.
        size: The bytes of the parameters, serialized, if they are known.
    """
    if (params.ByteSize() if size is None else size) < _SMALL:
        return None
    return next(chain(_crowds(params), _crowds_in_all(params)), None)


_UNKNOWN: Final = "members that are null or not of the contract"


def _crowds(params: ChatCompletionParams) -> Iterator[Violation]:
    for field, value in params.ListFields():
        counted = _COUNTED.get(field.name)
        if counted is not None:
            name, most, entries = counted
            if (size := len(entries(value))) > most:
                yield too_long(name, most, "entries", size)
    if params.extra_json:
        for name in ("messages", "tools", "functions"):
            # Still text, so count braces instead of objects; some can be in strings.
            if params.extra_json.get(name, "").count("{") > _MOST_BRACES:
                yield too_long(name, MOST, "entries")
        if len(params.extra_json) > openai_json.MAX_UNKNOWN:
            yield too_long("extra_json", openai_json.MAX_UNKNOWN, _UNKNOWN)


def _itself(value: Any) -> Sized:
    entries: Sized = value
    return entries


_COUNTED: Final[Mapping[str, tuple[str, int, Callable[[Any], Sized]]]] = {
    "messages": ("messages", MOST, _itself),
    "tools": ("tools", MOST, _itself),
    "functions": ("functions", MOST, _itself),
    "tool_choice_object": (
        "tool_choice.allowed_tools.tools",
        MOST,
        lambda choice: choice.allowed_tools.tools,
    ),
    "prediction": ("prediction.content", MOST, lambda prediction: prediction.content_parts.items),
    "stop_list": ("stop", MOST, lambda stop: stop.items),
    "modalities": ("modalities", MOST, _itself),
    "metadata": ("metadata", MOST, _itself),
    "logit_bias": ("logit_bias", MOST_BIASES, _itself),
}
"""Fields with entries: the name of the member, its maximum, and a function that returns them."""


def _crowds_in_all(params: ChatCompletionParams) -> Iterator[Violation]:
    parts = calls = annotations = braces = 0
    unknown = len(params.extra_json)
    for index, message in enumerate(params.messages):
        if message.HasField("content_parts"):
            parts += len(message.content_parts.items)
        calls += len(message.tool_calls)
        annotations += len(message.annotations)
        if parts > MOST or calls > MOST or annotations > MOST:
            counts = {"content": parts, "tool_calls": calls, "annotations": annotations}
            name = max(counts, key=lambda name: counts[name])
            yield too_long(f"messages[{index}].{name}", MOST, "entries in all messages")
        if message.extra_json:
            unknown += len(message.extra_json)
            braces += message.extra_json.get("content", "").count("{")
            if braces > _MOST_BRACES:
                yield too_long(f"messages[{index}].content", MOST, "entries in all messages")
        if unknown > openai_json.MAX_UNKNOWN:
            yield too_long("extra_json", openai_json.MAX_UNKNOWN, _UNKNOWN)

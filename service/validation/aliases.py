"""Misspellings that an upstream can read as a member of the contract.

The service does not price such a member. The upstream could obey it, so that the call would cost
more than its hold.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from chatcompletion import openai_json
from chatcompletion.default_messages import quoted
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletionParams,
    ChatMessage,
    ContentPart,
    StreamOptions,
)
from service.errors import Violation


def folded(name: str) -> str:
    """Return the form of a name under which the most lenient parser looks it up.

    Go's JSON parser ignores case and reads U+212A as k. Parsers of protobuf's JSON read maxTokens
    as max_tokens.
    """
    if not name.isascii() and len(name) <= _LONGEST_FOLDED:
        name = unicodedata.normalize("NFKC", name).casefold()
        name = unicodedata.normalize("NFKC", name)
    return name.lower().replace("_", "").replace("-", "")


_LONGEST_FOLDED: Final = 128
"""Maximum characters. A longer name cannot fold to a known name."""


def _names(kind: type[Message]) -> Mapping[str, str]:
    """Return the names of the contract, by name and by folded name."""
    names = openai_json.member_names(kind)
    return {folded(name): name for name in names} | {name: name for name in names}


_PARAMS: Final = _names(ChatCompletionParams)
_OPTIONS: Final = _names(StreamOptions)
_MESSAGE: Final = _names(ChatMessage)
_PART: Final = _names(ContentPart)
_ANSWER: Final = {
    folded_name: name
    for folded_name, name in _MESSAGE.items()
    if name in {"role", "content", "audio"}
}
"""The same for an assistant's message, which has any other member as the upstream delivered it."""


def aliases(params: ChatCompletionParams) -> Iterator[Violation]:
    """Yield the misspelt members that an upstream can read as a member of the contract."""
    yield from _misspelt(params, _PARAMS, "")
    yield from _misspelt(params.stream_options, _OPTIONS, "stream_options.")
    for index, message in enumerate(params.messages):
        if message.extra_json:
            known = _ANSWER if message.role == "assistant" else _MESSAGE
            yield from _misspelt(message, known, f"messages[{index}].")
        if message.HasField("content_parts"):
            for place, part in enumerate(message.content_parts.items):
                if part.extra_json:
                    yield from _misspelt(part, _PART, f"messages[{index}].content[{place}].")


def _misspelt(message: Any, known: Mapping[str, str], path: str) -> Iterator[Violation]:
    for name in message.extra_json:
        meant = known.get(name) or known.get(folded(name), name)
        if meant != name:
            yield Violation(
                param=path + meant,
                message=f"Unknown parameter: {quoted(path + name)}. "
                f"Did you mean {quoted(path + meant)}?",
            )

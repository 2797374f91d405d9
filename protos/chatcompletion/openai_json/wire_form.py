"""The serialized messages of a stream that differ only in the text of their chunk.

    0a 3d 0a 01 31 … 3a 0b … 12 05 " wide" …
    ------------ before ----------- text -after

The text is at the innermost of nested messages, each of which begins with its size. Therefore, the
bytes before the text depend on its size, but not on its characters, and the bytes after it are
always the same. `WireForm` keeps the bytes before the texts of each size.
"""

from typing import Final

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionChunk
from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionResponse

_MOST_SIZES: Final = 64
"""Sizes of texts of which the bytes before them are kept, because open streams keep them."""
_LARGER_SIZES: Final = 4 * 4
"""Bytes by which the four sizes that depend on the text can be longer than without a text."""


class WireForm:
    """The serialized messages of chunks that differ from a chunk only in their text.

    Args:
        chunk: A chunk with one choice and any `content` that is a text. It must not change.
    """

    __slots__ = ("_after", "_before", "_chunk", "_sizes")

    def __init__(self, chunk: ChatCompletionChunk) -> None:
        self._chunk = chunk
        one, other = self._serialized("0"), self._serialized("1")
        place = next(place for place, byte in enumerate(one) if byte != other[place])
        self._after = one[place + 1 :]
        self._before: dict[int, bytes] = {}
        self._sizes: dict[int, int] = {}
        """The size of the text in a message, by the size of the message."""

    def write(self, text: str) -> bytes:
        """Return the serialized message with a text, its maps in the order of their keys."""
        data = text.encode()
        return self._before_text(len(data)) + data + self._after

    def text_of(self, data: bytes) -> str | None:
        """Return the text of a serialized message, or None if `write` does not return `data`."""
        size = self._sizes.get(len(data))
        if size is None:
            size = self._text_size(len(data))
            if size is None:
                return None
        before = self._before_text(size)
        if not (data.startswith(before) and data.endswith(self._after)):
            return None
        try:
            return data[len(before) : len(before) + size].decode()
        except UnicodeDecodeError:  # no parser accepts the message
            return None

    def _text_size(self, size: int) -> int | None:
        """Return the size of the text in messages of a size, or None if there are none."""
        rest = size - len(self._after)
        most = rest - len(self._before_text(0))
        for text in range(most, max(most - _LARGER_SIZES, 0) - 1, -1):
            if text + len(self._before_text(text)) == rest:
                if len(self._sizes) < _MOST_SIZES:
                    self._sizes[size] = text
                return text
        return None

    def _before_text(self, size: int) -> bytes:
        before = self._before.get(size)
        if before is None:
            data = self._serialized("0" * size)
            before = data[: len(data) - len(self._after) - size]
            if len(self._before) < _MOST_SIZES:
                self._before[size] = before
        return before

    def _serialized(self, text: str) -> bytes:
        message = StreamChatCompletionResponse(chunk=self._chunk)
        message.chunk.choices[0].delta.content_text = text
        return message.SerializeToString(deterministic=True)

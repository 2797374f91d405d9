"""Reads the serialized messages of a stream without parsing those that differ only in their text.

    bytes -> WireChunks.read -> TextChunk                      only the text differs
                             -> StreamChatCompletionResponse   any other message

The bytes of a message decide: it is a `TextChunk` only if serializing that chunk returns the same
bytes. Any of the messages can be the pattern of those that follow.
"""

from typing import Final

from chatcompletion.openai_json.text_chunks import Template, TextChunk
from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionResponse

_TRIES: Final = 8
"""Attempts to find a pattern. Each message that follows a pattern pays for another attempt."""
_LARGEST: Final = 4096
"""Maximum bytes of a message that becomes or follows a pattern, because open streams keep them."""


class WireChunks:
    """Reads the messages of one stream."""

    __slots__ = ("_template", "_tries")

    def __init__(self) -> None:
        self._template: Template | None = None
        self._tries = _TRIES

    def read(self, data: bytes) -> StreamChatCompletionResponse | TextChunk:
        """Return a message.

        Args:
            data: The serialized message.

        Raises:
            google.protobuf.message.DecodeError: It is malformed.
        """
        template = self._template
        if template is not None and len(data) <= _LARGEST:
            text = template.wire().text_of(data)
            if text is not None:
                self._tries += 1
                return TextChunk(template, text)
        message = StreamChatCompletionResponse.FromString(data)
        if self._tries > 0 and len(data) <= _LARGEST:
            self._learn(data, message)
        return message

    def _learn(self, data: bytes, message: StreamChatCompletionResponse) -> None:
        """Use a message as the pattern, if it is a chunk of one choice with a text."""
        choices = message.chunk.choices
        if len(choices) != 1 or not choices[0].delta.content_text:
            return
        self._tries -= 1
        template = Template(message.chunk)
        if template.wire().text_of(data) is not None:  # the message has nothing else
            self._template = template

"""Chunks that differ from an earlier chunk of their stream only in their text.

    {"id":"1","choices":[{"index":0,"delta":{"content":" wide"},"finish_reason":null}]}
    --------------------- before -------------------- text --------- after ----------

Almost all chunks of a stream are such. `TextChunks` recognizes them by the bytes before and after
the text, and decodes only the text. A `TextChunk` is written in the same way: the JSON and the
serialized message around the text are made once for all of them.

The rest of such a document has the same meaning, because the text is one JSON string between the
same bytes. That this string is the content is tested before a pattern is used: with another text in
its place, the document must decode to the same chunk with that text.
"""

from typing import Final

import msgspec

from chatcompletion.openai_json.documents import decode_chunk, encode_chunk
from chatcompletion.openai_json.wire_form import WireForm
from chatcompletion.openai_json.writers import encode_value
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionChunk

_NAME: Final = (b'"content":', b'"content": ')
_TRIES: Final = 8
"""Attempts to find a pattern. Each chunk that follows a pattern pays for another attempt."""
_LARGEST: Final = 4096
"""Maximum bytes of a document that becomes or follows a pattern, because open streams keep them."""
_PROBE: Final = "?"
"""What is added to a text for the test of a pattern."""

_decode_text: Final = msgspec.json.Decoder(str).decode


class Template:
    """A chunk whose text is replaced.

    Args:
        chunk: A chunk with one choice and a `content` that is a text. It is copied.
    """

    __slots__ = ("_around", "_wire", "chunk")

    def __init__(self, chunk: ChatCompletionChunk) -> None:
        self.chunk: Final = ChatCompletionChunk()
        """The chunk with an empty text."""
        self.chunk.CopyFrom(chunk)
        self.chunk.choices[0].delta.content_text = ""
        self._around: tuple[bytes, bytes] | None = None
        self._wire: WireForm | None = None

    def wire(self) -> WireForm:
        """Return the serialized messages of its chunks."""
        if self._wire is None:
            self._wire = WireForm(self.chunk)
        return self._wire

    def around(self) -> tuple[bytes, bytes]:
        """Return the JSON before and after the text.

        Raises:
            EncodeError: As `encode_chunk`.
        """
        if self._around is None:
            self._around = self._written()
        return self._around

    def _written(self) -> tuple[bytes, bytes]:
        marked = ChatCompletionChunk()
        marked.CopyFrom(self.chunk)
        mark = _PROBE
        while True:
            marked.choices[0].delta.content_text = mark
            found = _around(mark, encode_chunk(marked))
            if found is not None:
                return found
            mark += _PROBE  # a member before it has the same text


class TextChunk:
    """A chunk that differs from its template only in its text. It takes the place of a message."""

    __slots__ = ("template", "text")

    def __init__(self, template: Template, text: str) -> None:
        self.template: Final = template
        self.text: Final = text

    @property
    def chunk(self) -> ChatCompletionChunk:
        """A message of its own."""
        made = ChatCompletionChunk()
        made.CopyFrom(self.template.chunk)
        made.choices[0].delta.content_text = self.text
        return made

    def encode(self) -> bytes:
        """Return the document that `encode_chunk` returns for the message. Errors are the same."""
        before, after = self.template.around()
        return before + encode_value(self.text) + after

    def serialize(self) -> bytes:
        """Return a `StreamChatCompletionResponse` with this chunk, serialized."""
        return self.template.wire().write(self.text)


class TextChunks:
    """Recognizes the chunks of one stream that differ from an earlier one only in their text.

    repetition(data)     the chunk of a document that follows the pattern, or None
    learn(data, chunk)   any other document: it can be the next pattern
    repeat(chunk)        how the chunks of the new pattern are delivered
    """

    __slots__ = ("_after", "_before", "_found", "_template", "_tries")

    def __init__(self) -> None:
        self._before = self._after = b""
        self._template: Template | None = None
        self._found: tuple[bytes, bytes] | None = None
        """The bytes around the text of the last document that followed no pattern."""
        self._tries = _TRIES

    def repetition(self, data: bytes) -> TextChunk | None:
        """Return the chunk of a document that follows the pattern, otherwise None."""
        template = self._template
        if template is None or len(data) > _LARGEST:
            return None
        before, after = self._before, self._after
        if not (data.startswith(before) and data.endswith(after)):
            return None
        try:
            text = _decode_text(data[len(before) : len(data) - len(after)])
        except (msgspec.DecodeError, UnicodeDecodeError):  # also if there is more than one string
            return None
        self._tries += 1
        return TextChunk(template, text)

    def learn(self, data: bytes, chunk: ChatCompletionChunk) -> bool:
        """Look for a pattern in two documents that follow one another.

        Args:
            data: A document that follows no pattern.
            chunk: What it decodes to.

        Returns:
            Whether there is a new pattern, which is used after `repeat`.
        """
        if self._tries <= 0 or len(data) > _LARGEST or len(chunk.choices) != 1:
            return False
        text = chunk.choices[0].delta.content_text
        around = _around(text, data) if text else None
        if around is None:
            return False
        self._tries -= 1
        is_second = around == self._found
        self._found = None if is_second else around
        if not (is_second and _is_content(around, text, chunk)):
            return False
        (self._before, self._after), self._template = around, None
        return True

    def repeat(self, chunk: ChatCompletionChunk) -> None:
        """Deliver the later chunks of the pattern like this one.

        Args:
            chunk: The chunk of the document that `learn` took, as it is delivered.
        """
        self._template = Template(chunk)


def _around(text: str, document: bytes) -> tuple[bytes, bytes] | None:
    """Return the bytes around the first place with a text, if it looks like that of the content."""
    before, _, after = document.partition(encode_value(text))
    return (before, after) if before.endswith(_NAME) else None


def _is_content(around: tuple[bytes, bytes], text: str, chunk: ChatCompletionChunk) -> bool:
    """Return whether a string between these bytes is the content of the chunk, and nothing else."""
    before, after = around
    other = decode_chunk(before + encode_value(text + _PROBE) + after)
    if len(other.choices) != 1:
        return False
    delta = other.choices[0].delta
    is_content = delta.content_text == text + _PROBE
    delta.content_text = text
    return is_content and other == chunk

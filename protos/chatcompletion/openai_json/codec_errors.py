"""What is refused, and how it is told.

    DecodeError   JSON that cannot become a message, or a message that cannot be made canonical
    EncodeError   a message that cannot become JSON

    code                when
    invalid_json        not one JSON text (RFC 8259, UTF-8, no byte-order mark), or beyond a limit
    invalid_type        JSON, but not the kind of value that the document is
    duplicate_member    a member in two places, or in one of them twice
    invalid_null_field  a number in null_fields that is not the first field of a member
    invalid_number      NaN or an infinity, which JSON cannot say

No text here quotes what a caller sent: names of fields and offsets, never values.
"""


class CodecError(ValueError):
    """A document or a message that has no counterpart on the other side.

    Attributes:
        message: What is wrong, for people.
        param: The member at fault by its path, such as `messages[0].content`; None where it is the
            document as a whole.
        code: What is wrong, for machines: see the table of this module.
    """

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


class DecodeError(CodecError):
    """What was received cannot be understood."""


class EncodeError(CodecError):
    """A message cannot be written as JSON."""

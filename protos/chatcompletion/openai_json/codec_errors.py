"""The errors of the codec.

    DecodeError   JSON that cannot become a message, or a message that cannot be made canonical
    EncodeError   a message that cannot become JSON

    code                when
    invalid_json        not one JSON text (RFC 8259, in UTF-8), or beyond a limit
    invalid_type        JSON, but not the kind of value that the document is
    duplicate_member    a member in two places, or in one of them twice
    invalid_null_field  a number in null_fields that is not the first field of a member
    invalid_number      NaN or an infinity, which JSON cannot express

The messages contain names of fields and offsets, never values that a caller sent.
"""

from typing import Final


class CodecError(ValueError):
    """A document that cannot become a message, or a message that cannot become a document.

    Attributes:
        message: A description of the error, for people.
        param: The path of the member at fault, such as `messages[0].content`; None if the whole
            document is at fault.
        code: The code of the error, from the table of this module.
    """

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


class DecodeError(CodecError):
    """JSON cannot become a message, or a message cannot become canonical."""


class EncodeError(CodecError):
    """A message cannot be written as JSON."""


_KINDS: Final = {"[": "an array", '"': "a string", "n": "null", "t": "a boolean", "f": "a boolean"}


def not_an_object(first: str) -> DecodeError:
    """Return the error for a JSON text of another kind.

    Args:
        first: The first character of the text after white space.
    """
    got = _KINDS.get(first, "a number")
    return DecodeError(
        f"Invalid type for the JSON: expected an object, but got {got}.", code="invalid_type"
    )

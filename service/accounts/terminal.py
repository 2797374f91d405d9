"""The output of commands: a table or a line for people, or one JSON document.

ACCOUNT  BALANCE
acme        24.5
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message


class CommandError(Exception):
    """The command failed. The text is one line for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The output of a command."""

    document: Message | Mapping[str, Any]
    """For machines."""
    text: str
    """For people."""
    note: str = ""
    """A note for people on standard error, which is not part of piped output."""
    unwritten: str = ""
    """What to do if the output cannot be written; appended to the error."""
    is_failure: bool = False

    def json(self) -> str:
        """Return the document in ASCII, which is the same JSON in every encoding."""
        document = self.document
        if isinstance(document, Message):
            document = MessageToDict(
                document,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        return json.dumps(document)


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """The output of a command that is written while the command runs, in UTF-8."""

    pieces: Iterator[str]
    """Pieces of whole lines. They raise the errors of the command."""
    note: str = ""
    """A note for people on standard error."""


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Container[str] = ()
) -> str:
    """Return a table, without a line break at its end.

    Args:
        head: The names of the columns.
        rows: A cell for each column.
        numbers: The columns that are aligned on the right.
    """
    lines = [tuple(name.upper() for name in head), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(head, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )

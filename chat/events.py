r"""Server-sent events, parsed from bytes; and what a chunk of an answer contains. Pure.

b'data: {"choices": [...]}', b'\n\ndata: [DO', b'NE]\n\n'  ->  '{"choices": [...]}', '[DONE]'
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from chat.ask_error import AskError, of_object

DONE: Final = "[DONE]"
"""The data of the last event of a complete answer."""

LARGEST: Final = 32 * 1024 * 1024
"""Maximum bytes of a line."""

_BROKE_OFF: Final = "The answer broke off before its end."


def event_data(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each event, whichever way the bytes are split. Comments are skipped.

    Args:
        pieces: The bytes of a body. Lines end with LF or CRLF.

    Raises:
        AskError: A line is longer than `LARGEST`, or the last event is incomplete.
    """
    rest = b""
    data: list[str] = []
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LARGEST:
            raise AskError("The server sent an event that is too large.")
        for line in lines:
            text = line.removesuffix(b"\r").decode("utf-8", "replace")
            name, _, value = text.partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
            elif not text and data:
                yield "\n".join(data)
                data = []
    if rest or data:
        raise AskError(_BROKE_OFF)


def chunks(events: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream up to `DONE`.

    Raises:
        AskError: An event is an error or no JSON object, or the stream ends without `DONE`.
    """
    for event in events:
        if event == DONE:
            return
        document = parsed(event)
        if error := document.get("error"):
            raise of_object(error, otherwise=_BROKE_OFF)
        yield document
    raise AskError(_BROKE_OFF)


def parsed(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object, with decimals in place of floats.

    Raises:
        AskError: The text is not a JSON object.
    """
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise AskError("The server sent something other than a JSON object.")
    return document


def text_of(chunk: Mapping[str, Any]) -> str:
    """Return the text that a chunk adds to the first choice: its content or its refusal."""
    delta = _first_choice(chunk).get("delta")
    members = delta if isinstance(delta, Mapping) else {}
    return "".join(
        text for name in ("content", "refusal") if isinstance(text := members.get(name), str)
    )


def finish_of(chunk: Mapping[str, Any]) -> str:
    """Return why the first choice ended, such as "stop", or "" if it goes on."""
    reason = _first_choice(chunk).get("finish_reason")
    return reason if isinstance(reason, str) else ""


def _first_choice(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, Mapping) else {}

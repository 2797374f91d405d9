"""Reads the error bodies of upstreams, in all of their shapes.

    body -> read -> ErrorBody: the error object, the names for machines, the texts for people

`error_reasons` lists the shapes. Names and texts are those of every object, so that an account
fault is recognized wherever a vendor puts it.

Pure, with limits, because the upstream chooses the body.
"""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from service.upstream.error_reasons import ErrorObject, error_object

_LARGEST: Final = 64 * 1024
"""Maximum bytes of a body whose names and texts are read."""
_LARGEST_PLAIN: Final = 2048
"""Maximum bytes of a body that is a text."""
_MOST_VALUES: Final = 64
"""Maximum objects and arrays that are searched."""
_MOST_FOUND: Final = 32
"""Maximum names, and maximum texts, that are kept."""
_LONGEST_NAME: Final = 64
_LONGEST_TEXT: Final = 512
"""Maximum characters of a text; the rest is cut."""

_DATA: Final = b"data:"
_EVENTS: Final = (_DATA, b"event:")
"""How an event stream begins."""
_MESSAGE: Final = re.compile(
    rb'"(?:message|msg|detail|error)"\s*:\s*"((?:[^"\\]|\\.){1,%d})' % _LONGEST_TEXT, re.DOTALL
)
"""Finds the first text of an error, also one that is cut."""

_INSIDE: Final = (
    *("error", "errors", "detail", "details", "innererror", "inner_error", "base_resp"),
    "choices",
)
"""The members in which vendors put an error or its details."""

_NAMES: Final = (
    *("code", "type", "status", "reason", "status_code", "statusCode"),
    *("error", "error_code", "errorCode", "error_type"),
)
"""The members in which vendors put a code."""

_TEXTS: Final = ("message", "msg", "status_msg", "error_msg", "error_message", "error", "detail")
"""The members in which vendors put a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorBody:
    """The contents of an error body. Do not log the texts: they can contain secrets."""

    error: ErrorObject | None = None
    """The error object, or None if the body reports no error."""
    names: tuple[str, ...] = ()
    """Codes, types, statuses and reasons, in the order of the body; numbers as text."""
    texts: tuple[str, ...] = ()
    """Messages."""
    blames_member: bool = False
    """Whether it names a member of the request, as errors of the caller do."""


def read(body: bytes, *, plain: bool = False) -> ErrorBody | None:
    """Return the contents of an error body, or None if it reports nothing.

    Args:
        body: The body.
        plain: Whether a body that is not JSON can be an event, the beginning of JSON, or a text
            for people.
    """
    document = _document(body)
    if document is None and plain:
        document = _event(body) or _beginning(body) or _plain_text(body)
    error = error_object(document)
    names: list[str] = []
    texts = [document[:_LONGEST_TEXT]] if isinstance(document, str) else []
    blames_member = False
    for found in _objects(document):
        names += _names(found)
        texts += _texts(found)
        param = found.get("param")
        blames_member = blames_member or (isinstance(param, str) and param != "")
    # Some vendors have a member of their own for the text. That of a parameter is the caller's.
    message = error.message[:_LONGEST_TEXT] if error is not None and not error.param else ""
    if message and message not in texts:
        texts.insert(0, message)
    if error is None and not names and not texts:
        return None
    return ErrorBody(
        error=error,
        names=tuple(names[:_MOST_FOUND]),
        texts=tuple(texts[:_MOST_FOUND]),
        blames_member=blames_member,
    )


def _event(body: bytes) -> Any:
    """Return the document of the first event with one, if the body is an event stream."""
    if len(body) <= _LARGEST and body.lstrip().startswith(_EVENTS):
        for line in body.splitlines():
            document = _document(line.removeprefix(_DATA)) if line.startswith(_DATA) else None
            if document is not None:
                return document
    return None


def _beginning(body: bytes) -> Any:
    """Return the message of a body that is too large, such as one that quotes the request."""
    found = _MESSAGE.search(body[:_LARGEST]) if len(body) > _LARGEST else None
    if found is None:
        return None
    # The text can be cut within an escape.
    for text in (found[1], found[1].rpartition(b"\\")[0]):
        with suppress(ValueError):
            return {"message": json.loads(f'"{text.decode(errors="replace")}"', strict=False)}
    return None


def _plain_text(body: bytes) -> str | None:
    """Return a body that is a short text for people, and no page."""
    text = body[:_LARGEST_PLAIN].decode(errors="replace").strip()
    if not text or text.startswith(("<", "{", "[")) or len(body) > _LARGEST_PLAIN:
        return None
    return text if text.replace("\n", " ").isprintable() else None


def _document(body: bytes) -> Any:
    if len(body) > _LARGEST:
        return None
    # A number can have too many digits, the nesting can be too deep.
    with suppress(ValueError, RecursionError):
        text = body.decode(json.detect_encoding(body), "replace")
        return json.loads(text, parse_constant=lambda _: None)
    return None


def _objects(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of an error body, from the outside in."""
    waiting = deque([document])
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        value = waiting.popleft()
        if isinstance(value, list):
            waiting.extend(value[:_MOST_VALUES])
        elif isinstance(value, dict) and "loc" not in value:  # "loc" marks an error in the request
            yield value
            waiting.extend(value[name] for name in _INSIDE if name in value)


def _names(found: Mapping[str, Any]) -> Iterator[str]:
    for member in _NAMES:
        value = found.get(member)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value) if abs(value) < 10**9 else None
        if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME:
            yield value


def _texts(found: Mapping[str, Any]) -> Iterator[str]:
    for member in _TEXTS:
        value = found.get(member)
        if isinstance(value, str) and value:
            yield value[:_LONGEST_TEXT]

"""Reads the error bodies of upstreams, in all of their shapes.

    {"error": {...}}                 OpenAI and most others
    [{"error": {...}}]               Gemini's list of one
    {"error": "...", "code": ...}    xAI, TGI
    {"detail": ...}                  FastAPI: a text, an object, or a list of problems
    {"errors": [{...}]}              Cloudflare
    {"base_resp": {...}}             MiniMax
    {"code": ..., "message": ...}    the bare object: older vLLM, DashScope, SiliconFlow

    body -> read -> ErrorBody: the error object, the names for machines, the texts for people

Pure, with limits, because the upstream chooses the body.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from chatcompletion import openai_json
from chatcompletion.v1 import error_pb2

_LARGEST: Final = 64 * 1024
"""Maximum bytes of a body whose names and texts are read."""
_MOST_VALUES: Final = 64
"""Maximum objects and arrays that are searched."""
_MOST_FOUND: Final = 32
"""Maximum names, and maximum texts, that are kept."""
_LONGEST_NAME: Final = 64
_LONGEST_TEXT: Final = 512
"""Maximum characters of a text; the rest is cut."""

_INSIDE: Final = (
    *("error", "errors", "detail", "details", "innererror", "inner_error", "base_resp"),
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

    error: error_pb2.ApiError | None = None
    """The error object in OpenAI's shape or bare, or None if there is none."""
    names: tuple[str, ...] = ()
    """Codes, types, statuses and reasons, in the order of the body; numbers as text."""
    texts: tuple[str, ...] = ()
    """Messages."""
    blames_member: bool = False
    """Whether it names a member of the request, as errors of the caller do."""


def read(body: bytes) -> ErrorBody | None:
    """Return the contents of an error body, or None if it has neither names nor texts."""
    error = _error_object(body)
    document = _document(body)
    names: list[str] = []
    texts = [document[:_LONGEST_TEXT]] if isinstance(document, str) else []
    blames_member = False
    for found in _objects(document):
        names += _names(found)
        texts += _texts(found)
        param = found.get("param")
        blames_member = blames_member or (isinstance(param, str) and param != "")
    if error is None and not names and not texts:
        return None
    return ErrorBody(
        error=error,
        names=tuple(names[:_MOST_FOUND]),
        texts=tuple(texts[:_MOST_FOUND]),
        blames_member=blames_member,
    )


def _error_object(body: bytes) -> error_pb2.ApiError | None:
    with suppress(openai_json.DecodeError):
        error = openai_json.decode_error(body)
        if error.ByteSize():
            return error
    # Older releases of vLLM send the bare object: {"object": "error", "message": …}.
    with suppress(openai_json.DecodeError):
        error = openai_json.decode_error(b'{"error":%b}' % body)
        if error.message:
            return error
    return None


def _document(body: bytes) -> Any:
    if len(body) > _LARGEST:
        return None
    # A number can have too many digits, the nesting can be too deep, the bytes can be no text.
    with suppress(ValueError, RecursionError):
        return json.loads(body)
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

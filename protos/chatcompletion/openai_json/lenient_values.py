r"""Readers of single JSON values in documents whose strings can have unpaired surrogates.

These are the functions of `strict_values`, built on the standard library; a slice is a `str`.
Upstreams that cut an emoji between two chunks send such documents. A protobuf string cannot hold an
unpaired surrogate, so such a string is a misfit and stays in extra_json unchanged.

    before the value   the value          after it
    {"a":␣             "\ud83d"           ,"b":1}
"""

import json
import re
from collections.abc import Callable, MutableMapping
from typing import Any, NoReturn

from chatcompletion.openai_json import verbatim
from chatcompletion.openai_json.codec_errors import DecodeError, not_an_object
from chatcompletion.openai_json.numbers import INT64_MAX, INT64_MIN, says
from chatcompletion.openai_json.shapes import Form
from chatcompletion.openai_json.strict_values import MisfitError

MISFITS = (MisfitError,)
"""The exceptions that a reader of values raises."""

CUT_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
"""Matches an escape that can be an unpaired surrogate."""


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


_scan = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant).raw_decode
_space = re.compile(r"[ \t\n\r]*").match


def document(data: bytes) -> dict[str, str]:
    """Return the slices of an object by name.

    Raises:
        DecodeError: The document is not JSON (`invalid_json`) or not an object (`invalid_type`).
    """
    whole = data.decode()
    try:
        begin = _skip_space(whole, 0)
        _, end = _scan(whole, begin)
        if _skip_space(whole, end) != len(whole):
            raise json.JSONDecodeError("trailing characters", whole, end)
    except json.JSONDecodeError as error:
        raise DecodeError(
            f"The JSON is malformed: {error.msg} (character {error.pos}).", code="invalid_json"
        ) from None
    except ValueError:
        raise DecodeError(
            "The JSON is malformed: NaN or an infinity.", code="invalid_json"
        ) from None
    if whole[begin] != "{":
        raise not_an_object(whole[begin])
    return members(whole[begin:end])


def members(text: str) -> dict[str, str]:
    """Return the slices of a valid JSON object by name; the last of duplicates wins."""
    found = {}
    at = _skip_space(text, 1)
    while text[at] != "}":
        name, at = _scan(text, at)
        begin = _skip_space(text, _skip_space(text, at) + 1)
        _, end = _scan(text, begin)
        found[name] = text[begin:end]
        at = _after_comma(text, end)
    return found


def elements(text: str) -> list[str]:
    """Return the slices of a valid JSON array."""
    found = []
    at = _skip_space(text, 1)
    while text[at] != "]":
        _, end = _scan(text, at)
        found.append(text[at:end])
        at = _after_comma(text, end)
    return found


def reader(forms: tuple[Form, ...]) -> Callable[[str], Any]:
    """Return a function that reads a slice of any of these forms, or null as None."""
    if forms == (Form.ANY,):
        return lambda value: None if value == "null" else text(value)
    readers = [READERS[form] for form in forms]

    def read(value: str) -> Any:
        if value == "null":
            return None
        for form in readers:
            try:
                return form(value)
            except MisfitError:
                continue
        raise MisfitError

    return read


def text(value: str) -> str:
    """Return the JSON text of a slice, in the form of extra_json."""
    return verbatim.kept(value.encode())


def keep(extra: MutableMapping[str, str], members: dict[str, str]) -> None:
    """Put members into extra_json."""
    for name, value in members.items():
        extra[verbatim.key(name)] = text(value)


def _skip_space(text: str, at: int) -> int:
    match = _space(text, at)
    return match.end() if match else at


def _after_comma(text: str, end: int) -> int:
    at = _skip_space(text, end)
    return _skip_space(text, at + 1) if text[at] == "," else at


def _string(value: str) -> str:
    if value[0] != '"':
        raise MisfitError
    spoken, _ = _scan(value)
    return _unicode(spoken)


def _unicode(spoken: str) -> str:
    try:
        spoken.encode()
    except UnicodeEncodeError:
        raise MisfitError from None
    return spoken


def _integer(value: str) -> int:
    digits = value[1:] if value[0] == "-" else value
    if not digits.isdigit() or len(digits) > 19 or not INT64_MIN <= int(value) <= INT64_MAX:
        raise MisfitError
    return int(value)


def _number(value: str) -> float:
    if value[0] not in "-0123456789":
        raise MisfitError
    number = float(value)
    if not says(number, value):
        raise MisfitError
    return number


def _boolean(value: str) -> bool:
    if value not in {"true", "false"}:
        raise MisfitError
    return value == "true"


def _octets(value: str) -> bytes:
    try:
        return bytes(_integer(element) for element in _elements(value))
    except ValueError:
        raise MisfitError from None


def _members(value: str) -> dict[str, str]:
    if value[0] != "{":
        raise MisfitError
    return members(value)


def _elements(value: str) -> list[str]:
    if value[0] != "[":
        raise MisfitError
    return elements(value)


READERS: dict[Form, Callable[[str], Any]] = {
    Form.STRING: _string,
    Form.INTEGER: _integer,
    Form.NUMBER: _number,
    Form.BOOLEAN: _boolean,
    Form.BYTES: _octets,
    Form.OBJECT: _members,
    Form.STRINGS: lambda value: [_string(element) for element in _elements(value)],
    Form.OBJECTS: lambda value: [_members(element) for element in _elements(value)],
    Form.STRING_MAP: lambda value: {
        _unicode(name): _string(item) for name, item in _members(value).items()
    },
    Form.NUMBER_MAP: lambda value: {
        _unicode(name): _number(item) for name, item in _members(value).items()
    },
}

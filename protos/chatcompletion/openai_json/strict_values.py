"""Readers of single JSON values in documents whose strings are all valid Unicode.

A *slice* is the text of one value: here a msgspec.Raw, cut out of the document without a copy. The
elements and members of a value are slices too, until they are read.

    form          slice               result
    STRING        "a"                 'a'
    INTEGER       7                   7
    NUMBER        0.5                 0.5
    BYTES         [104, 105]          b'hi'
    ANY           {"b": [1.0]}        '{"b": [1.0]}'
    OBJECT        {"b": [1.0]}        {'b': <slice of [1.0]>}
    OBJECTS       [{"b": 1}]          [{'b': <slice of 1>}]
    any           null                None
    any           another type        raises a misfit

This module uses msgspec, which rejects a document with an unpaired surrogate. `lenient_values` has
the same functions for such documents.
"""

from collections.abc import Callable, MutableMapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from chatcompletion.openai_json import verbatim
from chatcompletion.openai_json.numbers import CONSECUTIVE, INT64_MAX, INT64_MIN, says
from chatcompletion.openai_json.shapes import Form


class MisfitError(Exception):
    """A value does not have the expected form."""


MISFITS = (msgspec.ValidationError, MisfitError)
"""The exceptions that a reader of values raises."""

TYPES: dict[Form, Any] = {
    Form.STRING: str,
    Form.INTEGER: Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)],
    Form.NUMBER: float,
    Form.BOOLEAN: bool,
    Form.BYTES: list[Annotated[int, Meta(ge=0, le=255)]],
    Form.OBJECT: dict[str, Raw],
    Form.STRINGS: list[str],
    Form.OBJECTS: list[dict[str, Raw]],
    Form.STRING_MAP: dict[str, str],
    Form.NUMBER_MAP: dict[str, Raw],
}

_float = msgspec.json.Decoder(float | None).decode

members: Callable[[bytes], dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw]).decode
"""Returns the slices of an object by name; the last of duplicates wins.

Raises:
    msgspec.ValidationError: The document begins like a value of another type.
    msgspec.DecodeError: The document is not JSON, or has an unpaired surrogate.
"""

whole: Callable[[bytes], Raw] = msgspec.json.Decoder(Raw).decode
"""Checks a document of any type.

Raises:
    msgspec.DecodeError: The document is not JSON, or has an unpaired surrogate.
"""


def reader(forms: tuple[Form, ...]) -> Callable[[Raw], Any]:
    """Return a function that reads a slice of any of these forms, or null as None."""
    if forms == (Form.NUMBER,):
        return _number
    if forms == (Form.ANY,):
        return _any
    union: Any = None
    for form in forms:
        union = TYPES[form] if union is None else union | TYPES[form]
    decode: Callable[[Raw], Any] = msgspec.json.Decoder(union | None).decode
    if forms == (Form.BYTES,):
        return lambda value: None if (octets := decode(value)) is None else bytes(octets)
    if forms == (Form.NUMBER_MAP,):
        return lambda value: None if (items := decode(value)) is None else _numbers(items)
    return decode


def text(value: Raw) -> str:
    """Return the JSON text of a slice, in the form of extra_json."""
    return verbatim.kept(bytes(value))


def keep(extra: MutableMapping[str, str], members: dict[str, Raw]) -> None:
    """Put members into extra_json."""
    for name, value in members.items():
        key = verbatim.key(name) if name[:1] == '"' else name
        extra[key] = verbatim.kept(bytes(value))


def _number(value: Raw) -> float | None:
    number: float | None = _float(value)
    if number is None or (number and -CONSECUTIVE < number < CONSECUTIVE):
        return number
    literal = bytes(value).decode()
    if not says(number, literal):
        raise MisfitError
    return number or float(literal)  # msgspec reads -0 without its sign


def _numbers(items: dict[str, Raw]) -> dict[str, float]:
    numbers = {name: _number(value) for name, value in items.items()}
    if None in numbers.values():
        raise MisfitError
    return numbers  # type: ignore[return-value]  # the line above rejects None


def _any(value: Raw) -> str | None:
    spelt = text(value)
    return None if spelt == "null" else spelt

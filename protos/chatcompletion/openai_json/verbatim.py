r"""JSON text that travels as text: the values of extra_json, and RawJson.

received             kept
{"a":\n 1}           {"a":  1}          no line break ever reaches a line of an event stream
{"a":1,"a":2}        {"a":2}            of duplicate members the last
[1.0, 1e2, 10000000000000000000000]     as it is: numbers, order and escapes are not touched

name                 its key in extra_json
top_k                top_k
"quoted              "\"quoted"         a name that begins with a quotation mark, and one
\ud83d               "\ud83d"          with half of a surrogate pair: as a JSON string
"""

import json
from typing import Any, NoReturn

import msgspec

from chatcompletion.openai_json.codec_errors import DecodeError
from chatcompletion.openai_json.document_limits import MAX_DEPTH, check_shape

_read_value = msgspec.json.Decoder().decode
_check_value = msgspec.json.Decoder(msgspec.Raw).decode
_write_value = msgspec.json.Encoder().encode
_write_name = json.JSONEncoder().encode

_NO_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class _Literal(str):
    """A number as it is spelt."""

    __slots__ = ()


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


_read_literally = json.JSONDecoder(
    parse_int=_Literal, parse_float=_Literal, parse_constant=_refuse_constant
).decode


def kept(value: bytes) -> str:
    """Return the text to keep of one valid JSON value: on one line, without duplicate members."""
    if value[:1] in (b"{", b"["):
        if b"\n" in value or b"\r" in value:
            value = value.translate(_NO_LINE_BREAKS)
        if _has_duplicates(value):
            return _spell(_read_literally(value.decode()))
    return value.decode()


def is_kept(text: str) -> bool:
    """Whether `text` is one JSON value in the form that `kept` gives it."""
    if not is_value(text) or text != text.strip(" \t\r\n"):
        return False
    if text[0] not in "{[":
        return True
    return "\n" not in text and "\r" not in text and not _has_duplicates(text.encode())


def is_value(text: str) -> bool:
    """Whether `text` is exactly one JSON value, nested no deeper than a document may be."""
    try:
        value = text.encode()
        check_shape(value, max_depth=MAX_DEPTH)
        _check_value(value)
    except (DecodeError, UnicodeEncodeError):
        return False
    except msgspec.DecodeError:
        # It may be half of a surrogate pair, which msgspec refuses.
        try:
            _read_literally(text)
        except ValueError:
            return False
    return True


def is_unicode(text: str) -> bool:
    """Whether a string has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def key(name: str) -> str:
    """Return the key in extra_json of the member `name`."""
    return name if not name.startswith('"') and is_unicode(name) else _write_name(name)


def name_of(key: str) -> str:
    """Return the name of the member that has this key in extra_json.

    Raises:
        ValueError: The key begins with a quotation mark and is not a JSON string.
    """
    if not key.startswith('"'):
        return key
    name = _read_literally(key)
    if type(name) is not str:
        raise ValueError("a key that begins with a quotation mark is a JSON string")
    return name


def one_line(text: str) -> str:
    """Remove the line breaks between the tokens of a valid JSON value."""
    if "\n" in text or "\r" in text:
        return text.replace("\n", " ").replace("\r", " ")
    return text


def object_text(members: dict[str, str]) -> str:
    """Return the JSON object of these names, of any characters, and values in JSON text."""
    return "{" + ",".join(f"{_write_name(n)}:{value}" for n, value in members.items()) + "}"


def _has_duplicates(value: bytes) -> bool:
    """Whether an object in a JSON value has a name twice.

    A parser keeps one of them, so that what it writes again has fewer strings.
    """
    if value.count(b":") < 2:
        return False
    try:
        again = _write_value(_read_value(value))
    except (msgspec.MsgspecError, OverflowError):
        # Half of a surrogate pair, or a number that no type here holds.
        return _has_duplicates_literally(value)
    return _strings(again) != _strings(value)


def _has_duplicates_literally(value: bytes) -> bool:
    found = False

    def count(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({name for name, _ in pairs}) < len(pairs)

    json.loads(value.decode(), parse_int=_Literal, parse_float=_Literal, object_pairs_hook=count)
    return found


def _strings(value: bytes) -> int:
    """Twice the number of strings in a JSON value, names included."""
    if b"\\" in value:
        value = value.replace(b"\\\\", b"").replace(b'\\"', b"")
    return value.count(b'"')


def _spell(value: Any) -> str:
    """JSON text of a value in which numbers are literals."""
    if type(value) is _Literal:
        return value
    if type(value) is dict:
        return object_text({name: _spell(item) for name, item in value.items()})
    if type(value) is list:
        return "[" + ",".join(map(_spell, value)) + "]"
    return _write_name(value)

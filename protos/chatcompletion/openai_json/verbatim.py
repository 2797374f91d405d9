r"""JSON that stays text: the values of extra_json, and RawJson.

received             kept
{"a":\n 1}           {"a":  1}          without line breaks, which would break an event stream
{"a":1,"a":2}        {"a":2}            the last of duplicate members
[1.0, 1e2, 10000000000000000000000]     unchanged: numbers, order and escapes

name                 key in extra_json
top_k                top_k
"quoted              "\"quoted"         a JSON string, if the name begins with a quotation mark
\ud83d               "\ud83d"          or has an unpaired surrogate
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
    """A number in its original spelling."""

    __slots__ = ()


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


_read_literally = json.JSONDecoder(
    parse_int=_Literal, parse_float=_Literal, parse_constant=_refuse_constant
).decode


def kept(value: bytes) -> str:
    """Return a valid JSON value on one line, without duplicate members."""
    if value[:1] in (b"{", b"["):
        if b"\n" in value or b"\r" in value:
            value = value.translate(_NO_LINE_BREAKS)
        if _has_duplicates(value):
            return _spell(_read_literally(value.decode()))
    return value.decode()


def is_kept(text: str) -> bool:
    """Whether `text` is one JSON value in the form that `kept` returns."""
    if not is_value(text) or text != text.strip(" \t\r\n"):
        return False
    if text[0] not in "{[":
        return True
    return "\n" not in text and "\r" not in text and not _has_duplicates(text.encode())


def is_value(text: str) -> bool:
    """Whether `text` is exactly one JSON value of up to `MAX_DEPTH` levels."""
    try:
        value = text.encode()
        check_shape(value, max_depth=MAX_DEPTH)
        _check_value(value)
    except (DecodeError, UnicodeEncodeError):
        return False
    except msgspec.DecodeError:
        # It can be an unpaired surrogate, which msgspec rejects.
        try:
            _read_literally(text)
        except ValueError:
            return False
    return True


def is_unicode(text: str) -> bool:
    """Whether a string has no unpaired surrogate."""
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
    """Return a JSON object.

    Args:
        members: The JSON text of each value, by name. A name can have any characters.
    """
    return "{" + ",".join(f"{_write_name(n)}:{value}" for n, value in members.items()) + "}"


def _has_duplicates(value: bytes) -> bool:
    """Whether an object in a JSON value has a name twice.

    A parser keeps only one of them, so that the rewritten value has fewer strings.
    """
    if value.count(b":") < 2:
        return False
    try:
        again = _write_value(_read_value(value))
    except (msgspec.MsgspecError, OverflowError):
        # It has an unpaired surrogate, or a number beyond every type here.
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
    """Return twice the number of strings in a JSON value, including names."""
    if b"\\" in value:
        value = value.replace(b"\\\\", b"").replace(b'\\"', b"")
    return value.count(b'"')


def _spell(value: Any) -> str:
    """Return the JSON text of a value whose numbers are literals."""
    if type(value) is _Literal:
        return value
    if type(value) is dict:
        return object_text({name: _spell(item) for name, item in value.items()})
    if type(value) is list:
        return "[" + ",".join(map(_spell, value)) + "]"
    return _write_name(value)

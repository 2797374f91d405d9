"""Limits on the depth and the number of values of a document, checked before it is parsed.

    document      {"a": [1, "x]", {"b": 2}]}
    structure     {:[,,{:}]}                      everything outside of strings
    depth         1 2   3                         the maximum number of open brackets
    values        one per comma and opening bracket, and the document: empty arrays count twice
    lines         one per comma and bracket, if the document is indented

A parser recurses once per level and allocates once per value. These checks bound both, at a cost
that is linear in the number of bytes. A document that is not JSON is measured at least up to its
first error, where a parser stops.
"""

from itertools import accumulate

from chatcompletion.openai_json.codec_errors import DecodeError

MAX_DEPTH = 128
"""Maximum levels of arrays and objects in a document. Go accepts 10,000, .NET 64, Rust's serde 128;
real requests need about 20."""

MAX_VALUES = 262_144
"""Maximum values in a request. The largest real requests contain token ids: 131,072 for a full
context."""

MAX_UNKNOWN = 16_384
"""Maximum entries of extra_json in a received message: several for each of the maximum number of
messages in a request. Parsing one takes a few microseconds."""

_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LINES = bytes.maketrans(b"[]{},", b"\x01\xff\x01\xff\x00")
_NOT_LINES = bytes(set(range(256)) - set(b"[]{},"))
_LONGEST_NUMBER = 24
"""Maximum characters of a double: a writer can write 1e20 with all its digits, and 0.1 with 17."""
_LARGE = 16 * 1024
_FEW = 1024
"""Documents for which `count_rare` searches: of more bytes, with fewer of the one it counts."""
_ESCAPE = rb"\u003c"
_SPECIAL = (b"<", b">", b"&", b"'", b"\x7f")
"""Characters that a writer can escape although JSON does not require it."""


def check_shape(data: bytes, *, max_depth: int, max_values: int | None = None) -> None:
    """Reject a document with too many levels or too many values.

    Args:
        data: The document.
        max_depth: Levels of arrays and objects, at least 0.
        max_values: Values of any kind; None for no limit.

    Raises:
        DecodeError: The document exceeds a limit (`invalid_json`).
    """
    # Counting bytes shows for most documents that they are within the limits, without copying them:
    # each level has an opening bracket, each value but the first a comma or bracket before it.
    openers = count_openers(data)
    if openers <= max_depth and (
        max_values is None
        or len(data) <= max_values
        or 1 + data.count(b",") + openers <= max_values
    ):
        return

    data = _without_escapes(data)
    if max_values is not None and data.count(b'"') > 4 * max_values:  # each value and its name
        raise too_wide(max_values)
    structure = _outside_strings(data)
    if max_values is not None and _values(structure) > max_values:
        raise too_wide(max_values)
    steps = structure.translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > max_depth:
        raise DecodeError(
            f"The JSON is nested more than {max_depth} levels deep.", code="invalid_json"
        )


def count_openers(data: bytes) -> int:
    """Return the number of opening brackets, also in strings."""
    return count_rare(data, b"{") + count_rare(data, b"[")


def count_rare(data: bytes, byte: bytes) -> int:
    """Return how often a byte occurs.

    In a large document with few of them, searching is ten times as fast as counting.
    """
    if len(data) > _LARGE:
        place = -1
        for number in range(_FEW):
            place = data.find(byte, place + 1)
            if place < 0:
                return number
    return data.count(byte)


def longest_size(data: bytes) -> int:
    r"""Return the maximum bytes of a document after any program has parsed and rewritten it.

    The longest form has each value on its own line, as `json.dumps(…, indent=4)` writes it, and
    \uXXXX for each character of a string that is not printable ASCII or is special in HTML.
    """
    size = len(data)
    if not data.isascii():
        text = data.decode()
        ascii_only = len(text.encode("ascii", "ignore"))
        others = len(text.encode("utf-16-le")) // 2 - ascii_only
        size = ascii_only + len(_ESCAPE) * others
    bare = _without_escapes(data)
    short = bare.count(b"\\") - bare.count(b"\\u")
    special = sum(map(data.count, _SPECIAL))
    size += (len(_ESCAPE) - 1) * special + (len(_ESCAPE) - len(rb"\n")) * short
    return size + _indentation(bare, 0)


def indentation(text: str, *, depth: int) -> int:
    """Return the maximum bytes that a text gains if a program parses and indents it as JSON.

    If the text is not JSON, its brackets and commas count in the same way.

    Args:
        text: Any text.
        depth: The number of arrays and objects around the text.
    """
    return _indentation(_without_escapes(text.encode()), depth)


def _indentation(bare: bytes, depth: int) -> int:
    strange = bare.count(b'"') > 4 * MAX_VALUES
    structure = bare if strange else _outside_strings(bare)
    steps = structure.translate(_LINES, _NOT_LINES)
    lines = len(steps)
    if strange or lines > 3 * MAX_VALUES:  # each value has a comma or two brackets, or both
        levels = lines * lines // 4  # as if half of them were opened before one is closed
    else:
        levels = max(0, sum(accumulate(memoryview(steps).cast("b"))))
    fractions = structure.count(b".") + structure.count(b"e") + structure.count(b"E")
    fractions -= structure.count(b"true") + structure.count(b"false")
    spaces = structure.count(b":") + 4 * (levels + depth * lines)
    return lines + spaces + _LONGEST_NUMBER * fractions


def _without_escapes(data: bytes) -> bytes:
    """Remove the escaped quotation marks of a document."""
    if b"\\" in data:
        return data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return data


def _outside_strings(data: bytes) -> bytes:
    """Remove the strings of a document that has no escaped quotation marks."""
    return b"".join(data.split(b'"')[::2])


def count_values(data: bytes) -> int:
    """Return the number of values of a document, or any number above `MAX_VALUES` if it has more.

    Args:
        data: The document. It can be invalid JSON.
    """
    bare = _without_escapes(data)
    if bare.count(b'"') > 4 * MAX_VALUES:
        return MAX_VALUES + 1
    return _values(_outside_strings(bare))


def _values(structure: bytes) -> int:
    return 1 + structure.count(b",") + structure.count(b"[") + structure.count(b"{")


def too_wide(max_values: int) -> DecodeError:
    """Return the error for a document with more than `max_values` values."""
    return DecodeError(f"The JSON has more than {max_values} values.", code="invalid_json")

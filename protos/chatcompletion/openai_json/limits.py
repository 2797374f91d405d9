"""How deep and how wide a document may be, found out before anything is built from it.

    document      {"a": [1, "x]", {"b": 2}]}
    structure     {:[,,{:}]}                      everything outside of strings
    depth         1 2   3                         the most brackets open at once
    values        one per comma and opening bracket, and the document: empty arrays count twice

A parser recurses once per level and allocates once per value: both are bounded here, at a cost
that grows with the number of bytes only. A document that is not JSON is measured up to its first
error at least, which is as far as a parser comes.
"""

from itertools import accumulate

from chatcompletion.openai_json.errors import DecodeError

MAX_DEPTH = 128
"""Levels of arrays and objects in a document. Go accepts 10,000, .NET 64, Rust's serde 128; what
people send needs about 20."""

MAX_VALUES = 262_144
"""Values in a request. The largest that people send hold token ids: 131,072 for a full context."""

_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def check_shape(data: bytes, *, max_depth: int, max_values: int | None = None) -> None:
    """Refuse a document that is deeper or wider than is allowed.

    Args:
        data: The document.
        max_depth: Levels of arrays and objects, at least 0.
        max_values: Values of any kind; None for any number.

    Raises:
        DecodeError: The code is `invalid_json`.
    """
    # Most documents are seen to be within the limits without a look at their structure: each level
    # has an opening bracket, each value a byte.
    openers = data.count(b"{") + data.count(b"[")
    if openers <= max_depth and (max_values is None or len(data) <= max_values):
        return

    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if max_values is not None and data.count(b'"') > 4 * max_values:  # each value and its name
        raise _too_wide(max_values)
    structure = b"".join(data.split(b'"')[::2])
    if max_values is not None:
        values = 1 + structure.count(b",") + structure.count(b"[") + structure.count(b"{")
        if values > max_values:
            raise _too_wide(max_values)
    steps = structure.translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > max_depth:
        raise DecodeError(
            f"The JSON is nested more than {max_depth} levels deep.", code="invalid_json"
        )


def _too_wide(max_values: int) -> DecodeError:
    return DecodeError(f"The JSON has more than {max_values} values.", code="invalid_json")

"""Depth and number of values: exact at the limit, cheap far beyond it."""

import pytest

from chatcompletion.openai_json import (
    MAX_DEPTH,
    MAX_VALUES,
    DecodeError,
    decode_chunk,
    decode_completion,
    decode_error,
    decode_request,
)
from chatcompletion.openai_json.limits import check_shape

TOO_DEEP = "nested more than"
TOO_WIDE = "has more than"


def _arrays(levels: int) -> bytes:
    return b'{"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def _objects(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("document", [_arrays, _objects])
@pytest.mark.parametrize("decode", [decode_request, decode_completion, decode_chunk])
def test_depth_is_exact(document, decode) -> None:  # type: ignore[no-untyped-def]  # two tables
    decode(document(MAX_DEPTH))
    with pytest.raises(DecodeError, match=TOO_DEEP) as refused:
        decode(document(MAX_DEPTH + 1))
    assert refused.value.code == "invalid_json"


def test_depth_counts_levels_and_not_brackets() -> None:
    wide = b'{"x":[' + b",".join([b"[[]]"] * 1_000) + b"]}"
    decode_request(wide, max_depth=4)
    with pytest.raises(DecodeError, match=TOO_DEEP):
        decode_request(wide, max_depth=3)


@pytest.mark.parametrize(
    "string",
    [b"[" * 1_000, b'\\"[' * 1_000, b"\\\\", b'\\\\\\"[', b"{\\\\" * 300, b"\\u005b" * 300],
)
def test_brackets_in_strings_do_not_count(string: bytes) -> None:
    document = b'{"x":"' + string + b'","[{[{":["' + string + b'"]}'
    check_shape(document, max_depth=2)
    with pytest.raises(DecodeError, match=TOO_DEEP):
        check_shape(document, max_depth=1)


def test_half_a_surrogate_pair_opens_no_door() -> None:
    with pytest.raises(DecodeError, match=TOO_DEEP):
        decode_request(b'{"a":"\\ud83d","x":' + b"[" * 1_000 + b"]" * 1_000 + b"}")


@pytest.mark.parametrize(
    "document", [b"[" * 10_000, b'{"a":' * 10_000, b'{"x":' + b"[1," * 10_000, b'["' * 10_000]
)
def test_malformed_and_deep(document: bytes) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_request(document)
    assert refused.value.code == "invalid_json"


def test_errors_are_bounded_too() -> None:
    with pytest.raises(DecodeError, match=TOO_DEEP):
        decode_error(b'{"error":' + _arrays(MAX_DEPTH) + b"}")


def test_number_of_values_is_exact() -> None:
    document = b'{"x":[1,[0],{"b":0},"a,b"],"y":{"z":null}}'
    assert decode_request(document, max_values=10)
    with pytest.raises(DecodeError, match=TOO_WIDE) as refused:
        decode_request(document, max_values=9)
    assert refused.value.code == "invalid_json"


@pytest.mark.parametrize("unit", [b"[]", b"{}", b"0", b'""', b'{"a":1}', b'"\\ud83d"', b"null"])
def test_eight_mebibytes_of_small_values(unit: bytes) -> None:
    document = b'{"messages":[' + b",".join([unit] * ((8 << 20) // (len(unit) + 1))) + b"]}"
    with pytest.raises(DecodeError, match=TOO_WIDE):
        decode_request(document)


@pytest.mark.parametrize("junk", [b'"', b",", b"[", b"{", b"]", b"\\", b'"x', b'\\\\"'])
def test_eight_mebibytes_of_junk(junk: bytes) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_request(junk * ((8 << 20) // len(junk)))
    assert refused.value.code == "invalid_json"


def test_as_many_values_as_are_allowed() -> None:
    fill = b",".join([b"1"] * (MAX_VALUES - 3))
    params = decode_request(b'{"prompt_token_ids":[' + fill + b"]}")
    assert len(params.extra_json["prompt_token_ids"]) == len(fill) + 2

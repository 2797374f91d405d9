import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.upstream.mending import mended
from tests.support.examples import examples

MENDED: dict[str, tuple[bytes, bytes]] = {
    "NaN": (b'{"a":NaN}', b'{"a":null}'),
    "Infinity": (b"[Infinity,-Infinity, NaN ]", b"[null,null, null ]"),
    "a number that is none, after strings": (b'{"a":"NaN","b\\"":NaN}', b'{"a":"NaN","b\\"":null}'),
    "after an escaped backslash": (b'["\\\\",NaN,"\\\\"]', b'["\\\\",null,"\\\\"]'),
    "a byte of Latin-1": (b'{"a":"caf\xe9"}', '{"a":"caf\ufffd"}'.encode()),
    "half a character": (b'{"a":"\xf0\x9f\x98"}', '{"a":"\ufffd"}'.encode()),
    "half a surrogate pair": (b'"\xed\xa0\x80"', '"\ufffd\ufffd\ufffd"'.encode()),
    "both": (b'{"a\xff":NaN}', '{"a\ufffd":null}'.encode()),
}


@pytest.mark.parametrize("name", MENDED)
def test_a_fault_is_mended(name: str) -> None:
    data, wanted = MENDED[name]

    assert mended(data) == wanted
    json.loads(wanted)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b'{"a":nan}', b'{"a":+1}', b"{'a':1}", b'"NaN', b'"\\', b'"\\"NaN', b"[1,]"),
        *(b"\xef\xbb\xbf{}", b'{"a":"Infinity -Infinity NaN"}', b'{"NaN":"\\"NaN"}'),
    ],
)
def test_what_has_none_of_these_faults_is_left_alone(data: bytes) -> None:
    assert mended(data) is None


TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    ["NaN", "-Infinity", '"NaN', "\\", '\\"Infinity', "\ufffd"]
)
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@examples(300)
@given(DOCUMENTS, st.booleans())
def test_valid_json_is_left_alone(document: Any, ascii_only: bool) -> None:
    assert mended(json.dumps(document, ensure_ascii=ascii_only).encode()) is None


def with_numbers(document: Any) -> Any:
    """Return a document as a reader sees it that takes numbers that are none for null."""
    return json.loads(json.dumps(document), parse_constant=lambda _: None)


@examples(300)
@given(st.recursive(st.floats() | TEXTS, lambda inner: st.lists(inner, max_size=4), max_leaves=12))
def test_numbers_that_are_none_become_null(document: Any) -> None:
    data = json.dumps(document).encode()

    assert json.loads(mended(data) or data) == with_numbers(document)


@examples(300)
@given(st.binary(max_size=64))
def test_a_mended_document_has_no_fault_left(data: bytes) -> None:
    better = mended(data)

    if better is not None:
        better.decode()
        assert mended(better) is None


@pytest.mark.parametrize("unit", [b'\\"', b'"', b"\\", b"a", b"\xff", b"NaN", b'"\\"'])
def test_a_hostile_document_takes_time_in_proportion_to_its_size(unit: bytes) -> None:
    """With a quadratic pattern this takes an hour."""
    better = mended(b'"' + unit * 1_000_000)

    assert better is None or unit in (b"\xff", b"NaN")

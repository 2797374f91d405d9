"""Valid and invalid JSON, compared with a strict use of the standard library."""

from typing import Any

import pytest

from chatcompletion.openai_json import DecodeError, decode_request, encode_request
from tests.support.json_equality import parse

VALID = (
    b"{}",
    b" \t\r\n{ \t\r\n} \t\r\n",
    b'{"a":0}',
    b'{"a":-0}',
    b'{"a":-1.5e+10}',
    b'{"a":1E-2}',
    b'{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\uFFFF"}',
    b'{"a":"\x7f"}',
    '{"a":"\u0080\uffff"}'.encode(),
    '{"ä":"😀"}'.encode(),
    b'{"":""}',
    b'{"a":[[],{},[{}]]}',
    b'{"a":true,"b":false,"c":null}',
    b'{"a":"\\ud83d\\ude00"}',
    b'{"a":"\\ud83d"}',
    b'{"a":"\\ude00\\ud83d"}',
    b'{"\\ud83d":"x"}',
    b'{"a":1,"a":2}',
    b'{"a":123456789012345678901234567890.5}',
    b'{"a":1e999}',
    '{"a":"\ufeff"}'.encode(),
    '{"a":"\u2028\u2029\u0085"}'.encode(),
    b'{"a":"' + b"x" * 100_000 + b'"}',
    b'{"a":' + b"9" * 10_000 + b"}",
    b'{"model":"\\u0041","messages":[{"content":"\\u00e4"}]}',
)

INVALID = (
    b"",
    b" ",
    b"{",
    b"}",
    b"{]",
    b"[}",
    b'{"a"}',
    b'{"a":}',
    b'{"a":1,}',
    b"{,}",
    b'{"a":1 "b":2}',
    b"{'a':1}",
    b"{a:1}",
    b'{"a":01}',
    b'{"a":+1}',
    b'{"a":.5}',
    b'{"a":1.}',
    b'{"a":1e}',
    b'{"a":-}',
    b'{"a":0x1}',
    b'{"a":1_0}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":nul}',
    b'{"a":True}',
    b'{"a":"}',
    b'{"a":"\n"}',
    b'{"a":"\t"}',
    b'{"a":"\x00"}',
    b'{"a":"\x1f"}',
    b'{"a":"\\x41"}',
    b'{"a":"\\u12"}',
    b'{"a":"\\u12g4"}',
    b'{"a":"\\"}',
    b'{"a":1}{}',
    b'{"a":1}x',
    b"{}\x00",
    b"\x00{}",
    b"{}\x0b",
    b"\xef\xbb\xbf\xef\xbb\xbf{}",
    b" \xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b'{"a":"\xff"}',
    b'{"a":"\xc3"}',
    b'{"a":"\xed\xa0\xbd"}',
    b'{"a":"\xc0\x80"}',
    b'{"\xff":1}',
    b"{}/**/",
    b"// \n{}",
    b'{"a":[1,]}',
    b'{"a":[,1]}',
    b'{"a":[1 2]}',
    b'{"a":"\\ud83d" x}',
    b'{"\\ud83d":NaN}',
    b'{"\\ud83d":1,}',
    b'{"a":"\\ud83d","b":"\n"}',
    b'{"\\ud83d":01}',
    b'"\\ud83d',
    b'{"a":"\\uD8"}',
    b"\xc2\xa0{}",
    "{\u3000}".encode(),
    b"nul",
    b"[1,",
)

NOT_OBJECTS = (
    b"[]",
    b"null",
    b"1",
    b'"a"',
    b"true",
    b" [{}] ",
    b'"\\ud83d"',
    b'["\\ud83d"]',
    b"1e999",
)


def _by_the_library(data: bytes) -> Any:
    """Return the value of a document, or None if it is not a JSON object."""
    try:
        value = parse(data.decode())
    except ValueError:  # UnicodeDecodeError among them
        return None
    return value if isinstance(value, dict) else None


def _by_the_codec(data: bytes) -> Any:
    try:
        return _by_the_library(encode_request(decode_request(data)))
    except DecodeError:
        return None


@pytest.mark.parametrize("data", VALID)
def test_valid_documents_are_read(data: bytes) -> None:
    assert _by_the_library(data) is not None
    assert _by_the_codec(data) == _by_the_library(data)


@pytest.mark.parametrize("data", INVALID)
def test_invalid_documents_are_refused(data: bytes) -> None:
    assert _by_the_library(data) is None
    with pytest.raises(DecodeError) as refused:
        decode_request(data)
    assert refused.value.code == "invalid_json"
    assert refused.value.param is None


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b" []", "an array"),
        (b'"\\ud83d"', "a string"),
        (b"\n-1", "a number"),
        (b"null", "null"),
        (b"true", "a boolean"),
        (b"false", "a boolean"),
    ],
)
def test_the_message_names_the_kind_that_is_no_object(data: bytes, kind: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_request(data)
    assert refused.value.message == (
        f"Invalid type for the JSON: expected an object, but got {kind}."
    )


@pytest.mark.parametrize("data", [b"", b" \n", b"\xef\xbb\xbf"])
def test_an_empty_document_is_named_so(data: bytes) -> None:
    with pytest.raises(DecodeError, match="expected an object, but got no text"):
        decode_request(data)


@pytest.mark.parametrize("data", NOT_OBJECTS)
def test_documents_that_are_no_objects_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_request(data)
    assert refused.value.code == "invalid_type"
    assert refused.value.param is None


SMALL = (
    b'{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}],"n":10,"x":[1.5,null]}',
    b'{"model":"\\ud83d","messages":[{"content":"\xc3\xa4\\u00e4"}],"stop":["a"],"top_p":-1e-1}',
)


@pytest.mark.parametrize("document", SMALL)
def test_truncated_at_every_byte(document: bytes) -> None:
    assert _by_the_codec(document) == _by_the_library(document) is not None
    for length in range(len(document)):
        with pytest.raises(DecodeError) as refused:
            decode_request(document[:length])
        assert refused.value.code == "invalid_json"


@pytest.mark.parametrize("document", SMALL)
@pytest.mark.parametrize("bit", range(8))
def test_every_bit_flipped(document: bytes, bit: int) -> None:
    for position, byte in enumerate(document):
        flipped = document[:position] + bytes([byte ^ 1 << bit]) + document[position + 1 :]
        assert _by_the_codec(flipped) == _by_the_library(flipped), flipped


@pytest.mark.parametrize("document", SMALL)
@pytest.mark.parametrize(
    "byte", [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"\n", b"\xff"]
)
def test_a_byte_at_every_place(document: bytes, byte: bytes) -> None:
    for position in range(len(document)):
        replaced = document[:position] + byte + document[position + 1 :]
        assert _by_the_codec(replaced) == _by_the_library(replaced), replaced


def test_messages_tell_no_contents() -> None:
    for data in INVALID:
        with pytest.raises(DecodeError) as refused:
            decode_request(data.replace(b"a", b"secret"))
        assert "secret" not in str(refused.value)

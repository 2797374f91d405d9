"""The numbers that fit each field, and their JSON form."""

import math

import pytest

from chatcompletion.openai_json import DecodeError, EncodeError, decode_request, encode_request
from chatcompletion.openai_json import canonicalize_request as canonicalize
from chatcompletion.openai_json.numbers import INT64_MAX, INT64_MIN, exceeds_int64, integral
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("7.0", 7),
        ("70e-1", 7),
        ("1e2", 100),
        ("-1E+2", -100),
        ("9223372036854775807", INT64_MAX),
        ("9223372036854775807.0", INT64_MAX),
        ("-9223372036854775808", INT64_MIN),
        ("-9.223372036854775808e18", INT64_MIN),
        ("9007199254740993.0", 2**53 + 1),
    ],
)
def test_integers_in_any_spelling(literal: str, value: int) -> None:
    assert integral(literal) == value
    assert decode_request(b'{"seed":%b}' % literal.encode()).seed == value


@pytest.mark.parametrize(
    "literal",
    [
        "0.5",
        "1e-1",
        "0.99999999999999999999",
        "9223372036854775808",
        "-9223372036854775809",
        "9223372036854775807.5",
        "1e19",
        "1e999999999",
        "1e-999999999",
        "1e99999999999999999999",
        "9" * 5_000,
        "1." + "0" * 5_000 + "1",
    ],
)
def test_what_no_int64_is(literal: str) -> None:
    assert integral(literal) is None
    params = decode_request(b'{"seed":%b}' % literal.encode())
    assert not params.HasField("seed")
    assert params.extra_json["seed"] == literal


@pytest.mark.parametrize(
    ("literal", "written"),
    [
        ("0", b"0"),
        ("-0.0", b"-0.0"),
        ("1", b"1"),
        ("1.0", b"1"),
        ("-100.0", b"-100"),
        ("1e2", b"100"),
        ("0.7", b"0.7"),
        ("0.70", b"0.7"),
        ("1e-07", b"1e-7"),
        ("9007199254740991", b"9007199254740991"),
        ("5e-324", b"5e-324"),
        ("1.7976931348623157e308", b"1.7976931348623157e308"),
        ("0.1000000000000000055511151231257827", b"0.1"),
    ],
)
def test_doubles(literal: str, written: bytes) -> None:
    params = decode_request(b'{"temperature":%b}' % literal.encode())
    assert params.temperature == float(literal)
    assert encode_request(params) == b'{"temperature":%b}' % written


@pytest.mark.parametrize(
    "literal",
    ["9007199254740993", "-9007199254740993", "1" + "0" * 23, "9" * 5_000, "1e999", "1e-999"],
)
def test_what_no_double_is(literal: str) -> None:
    params = decode_request(b'{"temperature":%b}' % literal.encode())
    assert not params.HasField("temperature")
    assert params.extra_json["temperature"] == literal
    assert encode_request(params) == b'{"temperature":%b}' % literal.encode()


@pytest.mark.parametrize("value", [2.0**53, 2.0**53 + 2, 1e22, 1e23, -1e300, 2.0**63, 1.5e-300])
def test_large_doubles_come_back(value: float) -> None:
    params = ChatCompletionParams(temperature=value)
    assert decode_request(encode_request(params)) == params


def test_zero_keeps_its_sign() -> None:
    params = decode_request(encode_request(ChatCompletionParams(temperature=-0.0)))
    assert math.copysign(1.0, params.temperature) == -1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_cannot_say(value: float) -> None:
    for params, param in (
        (ChatCompletionParams(temperature=value), "temperature"),
        (ChatCompletionParams(logit_bias={"1": value}), "logit_bias"),
    ):
        with pytest.raises(EncodeError) as unwritable:
            encode_request(params)
        assert (unwritable.value.code, unwritable.value.param) == ("invalid_number", param)
        with pytest.raises(DecodeError) as refused:
            canonicalize(params)
        assert (refused.value.code, refused.value.param) == ("invalid_number", param)


def test_booleans_are_no_numbers() -> None:
    params = decode_request(b'{"n":true,"top_p":false,"stream":1,"store":0}')
    assert len(params.ListFields()) == 1
    assert len(params.extra_json) == 4


def test_magnitudes_beyond_int64() -> None:
    assert exceeds_int64("9223372036854775808")
    assert exceeds_int64("-1e999999999")
    assert exceeds_int64("-1E99999999999999999999")
    assert not exceeds_int64("1e-99999999999999999999")
    assert not exceeds_int64("1.5")
    assert not exceeds_int64("9223372036854775807")

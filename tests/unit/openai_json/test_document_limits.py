"""Depth, number of values and length: exact at the limit, cheap far beyond it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion import openai_json
from chatcompletion.openai_json import (
    DecodeError,
    check_size,
    count_values,
    decode_chunk,
    decode_completion,
    decode_error,
    decode_request,
    indentation,
    longest_size,
)
from chatcompletion.openai_json.document_limits import check_shape, count_openers, count_rare
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletionParams,
    ChatMessage,
    ContentPart,
    ContentPartList,
    FunctionDefinition,
    ImageUrl,
    RawJson,
    Tool,
)
from tests.support.examples import examples

# Other limits than the code's, to show that the functions use their arguments.
MAX_DEPTH, MAX_VALUES, MAX_UNKNOWN = 128, 262_144, 16_384

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


@pytest.mark.parametrize("size", [0, 1, 1000, 16 * 1024, 16 * 1024 + 1, 100_000])
@pytest.mark.parametrize("rare", [0, 1, 1023, 1024, 1025, 5000])
def test_a_byte_is_counted_in_small_and_large_documents(size: int, rare: int) -> None:
    data = b"x[" * rare + b"x" * size + b"["
    assert count_rare(data, b"[") == rare + 1
    assert count_rare(data, b"{") == 0
    assert count_openers(data) == rare + 1


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


# ------------------------------------------------------------- messages that are no documents

HUGE = b"[" + b",".join([b"1"] * MAX_VALUES) + b"]"
"""One value too many, because the array is one too."""


def _request(text: str = "", **members: str) -> ChatCompletionParams:
    schema = FunctionDefinition(name="f", parameters=RawJson(text=text)) if text else None
    return ChatCompletionParams(model="m", tools=[Tool(function=schema)], extra_json=members)


@pytest.mark.parametrize(
    "params",
    [
        _request(HUGE.decode()),
        _request(x=HUGE.decode()),
        _request("[" + "0," * (MAX_VALUES // 2) + "0]", x="[" + "0," * (MAX_VALUES // 2) + "0]"),
        _request("[" + '{"a":1},' * MAX_VALUES + "0]"),
        _request("[" + '"",' * (4 * MAX_VALUES) + '""]'),
    ],
)
def test_the_values_in_all_texts_of_a_message_are_limited(params: ChatCompletionParams) -> None:
    with pytest.raises(DecodeError, match=TOO_WIDE) as refused:
        _check_size(params)
    assert refused.value.code == "invalid_json"


@pytest.mark.parametrize(
    "params",
    [
        _request(HUGE.decode()[3:-1] + "]"),
        _request('"' + ",[{" * MAX_VALUES + '"'),
        _request(x='"' + ",[{" * MAX_VALUES + '"'),
        ChatCompletionParams(messages=[ChatMessage(content_text=",[{z" * MAX_VALUES)]),
        ChatCompletionParams(
            messages=[
                ChatMessage(
                    content_parts=ContentPartList(
                        items=[ContentPart(image_url=ImageUrl(url="z" * MAX_VALUES))]
                    )
                )
            ]
        ),
    ],
)
def test_what_stands_in_strings_is_no_value_and_no_member(params: ChatCompletionParams) -> None:
    _check_size(params)


def _check_size(params: ChatCompletionParams) -> None:
    check_size(params, params.SerializeToString())


def _unknown(count: int) -> dict[str, str]:
    return {f"x{number}": "null" for number in range(count)}


@pytest.mark.parametrize(
    "build",
    [
        lambda count: ChatCompletionParams(extra_json=_unknown(count)),
        lambda count: ChatCompletionParams(messages=[ChatMessage(extra_json=_unknown(count))]),
        lambda count: ChatCompletionParams(
            extra_json=_unknown(count // 2),
            tools=[Tool(extra_json=_unknown(count - count // 2))],
        ),
    ],
)
def test_the_number_of_members_that_no_field_says_is_exact(build) -> None:  # type: ignore[no-untyped-def]  # a table of lambdas
    _check_size(build(MAX_UNKNOWN))
    with pytest.raises(DecodeError, match=f"More than {MAX_UNKNOWN} members") as refused:
        _check_size(build(MAX_UNKNOWN + 1))
    assert (refused.value.code, refused.value.param) == ("invalid_json", "extra_json")


@pytest.mark.parametrize(
    ("document", "values"),
    [
        (b"1", 1),
        (b'"a,[{"', 1),
        (b"[1,[0],{}]", 6),
        (b'{"a":"\\",\\"","b":[]}', 4),
        (b'"' * (4 * MAX_VALUES + 1), MAX_VALUES + 1),
    ],
)
def test_values_are_counted(document: bytes, values: int) -> None:
    assert count_values(document) == values


# -------------------------------------------------------------------------------- longest size

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
    | st.text(st.sampled_from("\x00\n\t\"\\\\/<>&'\x7fn,:[]{}"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), inner, max_size=4)
    ),
    max_leaves=25,
)
REPEATABLE = examples(500)


def _escaped_for_html(text: str) -> str:
    for character in "<>&'\x7f":
        text = text.replace(character, f"\\u{ord(character):04x}")
    for escape, long in (("\\n", "\\u000a"), ("\\t", "\\u0009"), ("\\b", "\\u0008")):
        # An escaped backslash does not escape the next character.
        halves = [half.replace(escape, long) for half in text.split("\\\\")]
        text = "\\\\".join(halves)
    return text


@REPEATABLE
@given(VALUES, st.booleans())
def test_a_document_is_never_written_longer(value: object, ascii_only: bool) -> None:
    document = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    longest = longest_size(document)
    for indent in (None, 1, 4):
        for ensure_ascii in (False, True):
            text = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)
            assert len(text.encode()) <= longest
            assert len(_escaped_for_html(text).encode()) <= longest


@pytest.mark.parametrize(
    "document", [b"1e15", b"[1E+3,-2e-5]", b"0.1", b'{"a":true,"b":[false,1e9]}', b'["\\u00e9 "]']
)
def test_numbers_and_escapes_may_be_spelt_anew(document: bytes) -> None:
    assert longest_size(document) >= len(json.dumps(json.loads(document), indent=4))
    assert longest_size(b"1e20") >= len("100000000000000000000.0")
    assert longest_size(b"0.1") >= len("0.10000000000000001")


@pytest.mark.parametrize(
    ("document", "size"),
    [
        (b"7", 1),
        (b"true", 4),
        (b'"abc"', 5),
        (b'"<"', 8),
        ('"é"'.encode(), 8),
        ('"😀"'.encode(), 14),
        (b'"\\n"', 8),
        (b'"\\\\n"', 5),
        (b'"\\""', 4),
        (b"[1,2]", len("[\n    1,\n    2\n]")),
        (b'{"a":1}', len('{\n    "a": 1\n}')),
        (b"[[1]]", len("[\n    [\n        1\n    ]\n]")),
    ],
)
def test_the_longest_is_no_longer_than_it_can_be(document: bytes, size: int) -> None:
    assert longest_size(document) == size


@REPEATABLE
@given(VALUES, st.integers(0, 5))
def test_indentation_is_what_json_gains_in_a_string(value: object, depth: int) -> None:
    text = json.dumps(value, ensure_ascii=False)
    written: object = value
    for _ in range(depth):
        written = [written]
    # Each surrounding level adds a bracket and a line on either side.
    around = sum(2 * len("[") + len("\n") * 2 + 4 * (level + level + 1) for level in range(depth))
    indented = json.dumps(written, indent=4, ensure_ascii=False)
    assert len(indented.encode()) - around <= len(text.encode()) + indentation(text, depth=depth)


@pytest.mark.parametrize(
    "text", ["[" * 10, "]" * 10, '"', '\\"[', '{"a":' * 10, "a,b", "]" * 9 + "[" * 9, "\\"]
)
def test_what_is_no_json_gains_nothing_negative(text: str) -> None:
    assert indentation(text, depth=3) >= 0
    assert longest_size(text.encode()) >= len(text)


@pytest.mark.parametrize("unit", ['"', ",", "[", "]", "{", "\\", '\\"', "é", "<", "[],"])
def test_eight_mebibytes_of_anything_are_measured(unit: str) -> None:
    text = unit * ((8 << 20) // len(unit.encode()))
    assert indentation(text, depth=0) >= 0
    assert longest_size(text.encode()) >= len(text.encode())


def test_the_limits_are_these() -> None:
    assert (openai_json.MAX_DEPTH, openai_json.MAX_VALUES, openai_json.MAX_UNKNOWN) == (
        MAX_DEPTH,
        MAX_VALUES,
        MAX_UNKNOWN,
    )

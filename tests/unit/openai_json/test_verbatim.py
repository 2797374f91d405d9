"""JSON that stays text: on one line, with each name once, otherwise unchanged."""

import pytest

from chatcompletion.openai_json import decode_chunk, decode_request, encode_chunk, verbatim
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionChunk, RawJson


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "-0.0",
        "1e999",
        '"a\\u000ab"',
        "[1.0, 1e2 ,1E+2]",
        '{"b":1,"a":{"b":1}}',
        '{"a:b":"c:d","e":"\\"f\\":\\\\"}',
        '["\\ud83d",{"a":1,"b":"\\udc00"}]',
        '{"\\ud83d":1,"\\ud83e":2}',
        '{"big":123456789012345678901234567890,"b":1e400}',
        '["\u2028\u2029\u0085\ufeff"]',
        '[{"type":"string"},{"type":"string"}]',
    ],
)
def test_kept_as_it_is(text: str) -> None:
    assert verbatim.kept(text.encode()) == text
    assert verbatim.is_kept(text)
    assert decode_request(b'{"x":%b}' % text.encode()).extra_json["x"] == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{\n"a"\r\n:1}', '{ "a"  :1}'),
        ("[1,\n2]", "[1, 2]"),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('{"a":1.0,"b":1e2,"a":1E400}', '{"a":1E400,"b":1e2}'),
        ('{"a":1,"\\u0061":2}', '{"a":2}'),
        ('[{"a":{"b":1,"b":[{"c":1,"c":2}]}}]', '[{"a":{"b":[{"c":2}]}}]'),
        ('{"\\ud83d":1,"\\ud83d":"\\udc00"}', '{"\\ud83d":"\\udc00"}'),
        ('{"a":"\\"","b":"a:","a":null}', '{"a":null,"b":"a:"}'),
        ('{"a":1e999,"a":true}', '{"a":true}'),
    ],
)
def test_made_fit(text: str, kept: str) -> None:
    assert verbatim.kept(text.encode()) == kept
    assert not verbatim.is_kept(text)
    assert verbatim.is_kept(kept)


@pytest.mark.parametrize(
    "text",
    ["", " ", "1,2", "1 2", '1,"model":"m"', "nul", "NaN", "01", "'a'", '"\n"', "{", "[1,]",
     "\ufeff1", '{"\\ud83d":NaN}', '"\\ud83d', "[" * 200 + "]" * 200, "[" * 100_000,
     '"\ud83d"'],
)  # fmt: skip
def test_not_one_value(text: str) -> None:
    assert not verbatim.is_value(text)
    assert not verbatim.is_kept(text)


@pytest.mark.parametrize("text", [" 1", "1 ", "[1]\n", "\t{}"])
def test_spaces_around_a_value_are_not_kept(text: str) -> None:
    assert verbatim.is_value(text)
    assert not verbatim.is_kept(text)


@pytest.mark.parametrize(
    ("name", "key"),
    [("top_k", "top_k"), ("", ""), ("a\nb", "a\nb"), ("ä", "ä"),
     ('"', '"\\""'), ('"q"', '"\\"q\\""'),
     ("\ud83d", '"\\ud83d"'), ("a\udc00b", '"a\\udc00b"')],
)  # fmt: skip
def test_names_and_keys(name: str, key: str) -> None:
    assert verbatim.key(name) == key
    assert verbatim.name_of(key) == name


@pytest.mark.parametrize("key", ['"', '"a', '"a"b', '"a" 1', '"\n"', '"\\x"'])
def test_keys_that_are_no_strings(key: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of the library, or ours
        verbatim.name_of(key)


def test_a_line_break_never_reaches_an_event() -> None:
    read = decode_chunk(b'{\n"x"\n:\n[\r\n1\n,\r{\n}]\n,"moderation":{\r"a":\n1}\r\n}')
    made = ChatCompletionChunk(moderation=RawJson(text='{"a":\n[\r\n]}'))
    made.extra_json["x"] = "[1,\n2]"
    made.extra_json["y"] = "\n3\r"
    for chunk in (read, made):
        line = encode_chunk(chunk)
        assert b"\n" not in line
        assert b"\r" not in line
        assert decode_chunk(line).ListFields()

import json
import sys
from itertools import product
from typing import Any
from unicodedata import decomposition, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatMessage
from service.metering import tokens
from tests.support.examples import examples

REPEATABLE = examples(500)


def longest(text: str) -> int:
    return max(len(form.encode()) for form in (normalize("NFC", text), normalize("NFKC", text)))


DECOMPOSED = [
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if decomposition(character) or normalize("NFKD", character) != character
]
MARKS = "\u0301\u0316\u0323\u0327\u0345\u05b0\u0f71\u0f72\u3099\U0001d165"


def test_every_character_is_bounded_alone_and_before_any_mark() -> None:
    for mark in ("", *MARKS):
        text = "".join(f"{character}{mark}a" for character in DECOMPOSED)
        assert longest(text) <= len(text.encode()) + tokens.gain([text])


@REPEATABLE
@given(
    st.text(st.sampled_from([*DECOMPOSED[::7], *MARKS, *"ae\u1100\u1161\u11a8漢😀"]), max_size=50)
)
def test_no_normal_form_is_longer_than_the_bound(text: str) -> None:
    assert longest(text) <= len(text.encode()) + tokens.gain([text])


@pytest.mark.parametrize(
    ("texts", "gained"),
    [
        ([], 0),
        (["", "plain", "Grüße", "漢字", "한국어", "😀"], 0),
        (["\u0fb9"], 3),
        (["\ufdfa"], 30),
        (["\ufdfa", "한국어\ufdfa", "plain"], 60),
        (["한국어 \ufb01"], 0),
    ],
)
def test_what_is_normal_gains_nothing(texts: list[str], gained: int) -> None:
    assert tokens.gain(texts) == gained


def test_a_text_that_fits_into_no_model_is_bounded_by_its_worst() -> None:
    text = "\u0fb9" * 1_000_000
    gained = tokens.gain([text])
    assert 3 * len(text) <= gained <= 30 * len(text)


@pytest.mark.parametrize(
    "unit", ["\u0301\u0316", "\ufdfa", "a\u0316\u0301", "\U0001d160", "é\u0323"]
)
def test_a_megabyte_of_anything_is_measured(unit: str) -> None:
    text = unit * (1_000_000 // len(unit.encode()))
    assert tokens.gain([text]) >= 0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"a": "b"}', '{"a": "b"}'),
        (r'["\u00e9", 1.50]', None),
        (r'"\ud83d\ude00"', '"😀"'),
        (r'"\\u00e9"', r'"\\u00e9"'),
        (r"\u00e9", r"\u00e9"),
        ("[" * 100_000 + r'"\u00e9"', "[" * 100_000 + r'"\u00e9"'),
    ],
)
def test_escapes_are_read_where_there_are_any(text: str, read: str | None) -> None:
    if read is None:
        assert "é" in tokens.unescaped(text)
    else:
        assert tokens.unescaped(text) == read


def test_half_a_surrogate_pair_is_read_and_measured() -> None:
    read = tokens.unescaped(r'["\ud83d", "\ufdfa"]')
    assert tokens.gain([read]) == 30


def test_what_is_too_large_to_be_read_gains_no_less() -> None:
    text = json.dumps(["\u0fb9"] * (openai_json.MAX_VALUES + 1))
    assert tokens.gain([tokens.unescaped(text)]) >= 3 * openai_json.MAX_VALUES


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_about_four_bytes_are_a_token(size: int, count: int) -> None:
    assert tokens.about(size) == count


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (64, 1), (65, 2), (6400, 100)])
def test_at_least_64_bytes_are_a_token_of_sound(size: int, count: int) -> None:
    assert tokens.of_sound(size) == count


def test_composition_makes_nothing_longer() -> None:
    # The assumption of the bound: for each composed character, and for pairs of them.
    for first, second in product(DECOMPOSED[::40], repeat=2):
        for text in (first, first + second):
            assert len(normalize("NFC", text).encode()) <= len(normalize("NFD", text).encode())
            assert len(normalize("NFKC", text).encode()) <= len(normalize("NFKD", text).encode())


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("", 0),
        ("漢", 2.5),
        ("Two words.", 10),
        ("aabb", 4),
        ("a" + " " * 60 + "|" + "-" * 20 + "\n\n", 5),
        ("мир ", 4 + 1.5),
        ("हिन्दी", 6 + 3),
        ("漢字かな한글", 6 + 3 + 6),
        # The rest is extrapolated from the beginning.
        ("ab" * 50_000, 100_000),
        (" " * 50_000, 50_000 / 16_384),
    ],
)
def test_letters_are_about_as_long_as_in_english(text: str, letters: float) -> None:
    assert tokens.letters(text) == letters


def test_after_many_characters_each_counts_as_the_one_that_gains_most() -> None:
    text = "\ufb01" + "\u00e9" * 200_000  # the first one alone is not normalized
    gained = tokens.gain([text])
    assert (200_000 - 131_072) * 30 < gained < 200_000 * 33


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 2**21 - 1, 2**21])
@pytest.mark.parametrize("nulls", [b"", b"\x07", b"\x07\x08"])
@pytest.mark.parametrize("character", ["a", "é"])
def test_a_text_of_any_size_is_recognized(size: int, nulls: bytes, character: str) -> None:
    text = character * size
    members = {"null_fields": nulls} if nulls else {}
    message = ChatMessage(role="user", content_text=text, **members)  # type: ignore[arg-type]

    assert tokens.is_text(message, "user", text)


@pytest.mark.parametrize(
    "said", [{}, {"role": "user"}, {"content_text": "a"}, {"role": "user", "content_text": "a"}]
)
def test_any_other_member_is_more_than_a_text(said: dict[str, str]) -> None:
    for field in ChatMessage.DESCRIPTOR.fields:
        if field.name in {"role", "content_text", "content_parts", "null_fields"}:
            continue
        message: Any = ChatMessage(**said)  # type: ignore[arg-type]
        if field.name == "extra_json":
            message.extra_json[""] = ""
        elif field.is_repeated:
            getattr(message, field.name).add()
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, field.default_value)

        assert not tokens.is_text(message, message.role, message.content_text), field.name

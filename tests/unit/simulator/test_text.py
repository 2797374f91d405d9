from hypothesis import given
from hypothesis import strategies as st

from service.simulator import text
from tests.support.examples import examples


@examples(200)
@given(st.text())
def test_the_tokens_of_a_text_make_up_the_text(whole: str) -> None:
    tokens = text.split(whole)

    assert "".join(tokens) == whole
    assert all(tokens)
    assert text.count(whole) == len(tokens)


def test_prose_is_made_of_its_own_tokens() -> None:
    tokens = text.prose(b"key", 500)

    assert len(tokens) == 500
    assert text.split("".join(tokens)) == tokens
    assert "".join(tokens).startswith(text.INTRODUCTION + " ")


def test_shorter_prose_is_the_beginning_of_longer_prose() -> None:
    whole = text.prose(b"key", 200)

    assert [text.prose(b"key", length) for length in (0, 1, 11, 12, 75)] == [
        whole[:length] for length in (0, 1, 11, 12, 75)
    ]


def test_the_key_chooses_the_prose() -> None:
    assert text.prose(b"one", 40) != text.prose(b"two", 40)


def test_a_long_text_is_counted_by_its_length() -> None:
    word = "word " * 10_000

    assert (
        text.count(word)
        == text.count(word[: text.COUNTED_EXACTLY]) + (len(word) - text.COUNTED_EXACTLY) / 4
    )


def test_a_digest_tells_its_parts_apart() -> None:
    assert text.digest(b"a", b"bc") != text.digest(b"ab", b"c")


def test_alternatives_differ_from_each_other() -> None:
    assert len(set(text.alternatives(b"\x07", 21))) == 21

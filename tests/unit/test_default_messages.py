import pytest

from chatcompletion.default_messages import BRIDGE_MESSAGES, DEFAULT_MESSAGES, too_large
from chatcompletion.reasons import RULES


def test_each_reason_has_a_text() -> None:
    assert set(DEFAULT_MESSAGES) == set(RULES)


def test_each_text_is_whole_sentences_on_one_line() -> None:
    for text in (*DEFAULT_MESSAGES.values(), *BRIDGE_MESSAGES.values()):
        assert text.isprintable()
        assert text[0].isupper()
        assert text.endswith(".")


def test_the_bridge_has_texts_of_its_own_only_where_they_differ() -> None:
    assert set(BRIDGE_MESSAGES) <= set(DEFAULT_MESSAGES)
    assert not BRIDGE_MESSAGES.items() & DEFAULT_MESSAGES.items()


@pytest.mark.parametrize(
    ("most", "size", "text"),
    [
        (2**25, None, "at most 32 MiB. "),
        (2**25, 5 * 2**23, "at most 32 MiB, but got 40.0 MiB. "),
        (2**25, 2**25 + 1, "at most 33554432 bytes, but got 33554433 bytes. "),
        (2**25, 2**25 + 2**19, "at most 32 MiB, but got 32.5 MiB. "),
        (1000, 1001, "at most 1000 bytes, but got 1001 bytes. "),
        (1000, 2**21, "at most 1000 bytes, but got 2.0 MiB. "),
    ],
)
def test_a_size_differs_from_the_limit_as_it_is_written(
    most: int, size: int | None, text: str
) -> None:
    assert f"Request too large: expected {text}" in too_large(most, size)

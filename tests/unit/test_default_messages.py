from chatcompletion.default_messages import BRIDGE_MESSAGES, DEFAULT_MESSAGES
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

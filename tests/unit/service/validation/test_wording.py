import pytest

from service.validation import wording


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("string", "a string"),
        ("integer", "an integer"),
        ("object", "an object"),
        ("array of strings", "an array of strings"),
        ("number", "a number"),
        ("null", "null"),
    ],
)
def test_a_type_has_its_article(kind: str, text: str) -> None:
    assert wording.with_article(kind) == text


def test_a_number_is_quoted_as_it_is() -> None:
    for received, text in ((3.0, "3"), (2.001, "2.001"), (-1, "-1"), (10**15, "1e+15")):
        found = wording.out_of_range("n", "a number from 1 to 2", received)
        assert found.message == f"Invalid 'n': expected a number from 1 to 2, but got {text}."


def test_a_path_is_shortened_and_printable() -> None:
    found = wording.missing("a\n" + "x" * 1000)
    assert found.message.isprintable()
    assert len(found.message) < 120


def test_a_missing_member_can_have_the_names_of_its_fields() -> None:
    assert wording.missing("a").message == "Missing required parameter: 'a'."
    assert wording.missing("a", "a_text").message == (
        "Missing required parameter: 'a' (a_text in gRPC)."
    )


def test_an_unsupported_value_is_quoted_with_the_supported_ones() -> None:
    found = wording.unsupported_value("tier", ("a", "b", "c"), "d" * 100, "models.m.allowed")
    assert found.message == (
        f"Unsupported value for 'tier': the model supports 'a', 'b' and 'c', but got '{'d' * 63}…'."
    )
    assert (found.code, found.setting) == ("unsupported_value", "models.m.allowed")


def test_an_uncounted_excess_is_more() -> None:
    assert wording.too_long("stop", 4, "entries").message == (
        "Invalid 'stop': expected at most 4 entries, but got more."
    )

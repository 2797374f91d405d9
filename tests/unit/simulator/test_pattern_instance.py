import re

import pytest

from service.simulator.pattern_instance import MAX_LENGTH, UnreadablePatternError, matching

READABLE = (
    "",
    "abc",
    "^abc$",
    "^[a-z]+$",
    "^[A-Z]{2,4}-\\d{3}$",
    "^(foo|bar)baz?$",
    "^(?:a|b){3}$",
    "^(?P<year>\\d{4})-(?P<month>\\d\\d)$",
    "^[^a-z]$",
    "^[^\\w]$",
    "^\\D\\W\\S$",
    "^[\\d_-]{5}$",
    "^[-a]$",
    "^[a\\]]$",
    "^\\.\\*\\/\\\\$",
    "^\\x41\\u0042\\t$",
    "^.{3}$",
    "^a*b+?c??$",
    "^x{0}$",
    "^x{2,}$",
    "a|^b$",
    "^[0-9]{3}(-[0-9]{4})?$",
    "^#[0-9a-fA-F]{6}$",
    "^((a{2}){2}){2}$",
)


@pytest.mark.parametrize("pattern", READABLE)
@pytest.mark.parametrize("variant", [0, 1, 7])
def test_the_string_matches(pattern: str, variant: int) -> None:
    assert re.search(pattern, matching(pattern, variant=variant))


@pytest.mark.parametrize(
    ("pattern", "shortest", "longest"),
    [("^a+b*$", 20, 21), ("^[a-z]{3,9}$", 9, None), ("abc", 10, 10), ("^(ab)+$", 7, 8)],
)
def test_the_length_is_kept(pattern: str, shortest: int, longest: int | None) -> None:
    found = matching(pattern, shortest=shortest, longest=longest)

    assert re.search(pattern, found)
    assert shortest <= len(found) <= (longest or len(found))


def test_variants_differ() -> None:
    assert len({matching("^[a-z]{2}[0-9]$", variant=number) for number in range(20)}) == 20


UNREADABLE = (
    "(?=a)",
    "(?!a)",
    "(?<=a)b",
    "(a)\\1",
    "\\bword\\b",
    "\\p{L}",
    "a^b",
    "a$b",
    "(a$)b",
    "[b-a]",
    "[]",
    "[abc",
    "(abc",
    "abc)",
    "*a",
    "a{2,1}",
    "a{x}",
    "a{999999999}",
    "(a{1000}){1000}",
    "\\xZZ",
    "abc\\",
    "(" * 100 + ")" * 100,
)


@pytest.mark.parametrize("pattern", UNREADABLE)
def test_what_is_not_simple_is_refused(pattern: str) -> None:
    with pytest.raises(UnreadablePatternError):
        matching(pattern)


def test_no_string_of_an_impossible_length_is_made() -> None:
    with pytest.raises(UnreadablePatternError):
        matching("^abc$", shortest=4)
    with pytest.raises(UnreadablePatternError):
        matching("^a*$", shortest=MAX_LENGTH + 1)


def test_an_expression_that_would_stall_a_matcher_does_not() -> None:
    assert set(matching("^(a+)+$", shortest=200)) == {"a"}

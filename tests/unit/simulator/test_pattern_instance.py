import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.simulator.pattern_instance import UnsatisfiableError, matching
from tests.support.examples import examples

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
    "^\\D\\W\\S\\s$",
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
    "^((a{2}){2}){2}$",
    "^[\u4e00-\u9fa5]+$",
    "(^a)(b$)",
    "(?:a$){0}b",
    "^(a+)+$",
)


def free(_: int) -> None:
    """Charge nothing."""


@pytest.mark.parametrize("pattern", READABLE)
def test_the_string_matches(pattern: str) -> None:
    assert re.search(pattern, matching(pattern, charge=free))


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
    "(^a){2}",
    "(?i)[^a]",
    "(?i:a)",
    "(?>a*)a",
    "a*+a",
    "[b-a]",
    "[^\\s\\S]",
    "[abc",
    "(abc",
    "abc)",
    "*a",
    "a{2,1}",
    "a{99999999999}",
    "\\xZZ",
    "abc\\",
)


@pytest.mark.parametrize("pattern", UNREADABLE)
def test_what_is_not_simple_is_refused(pattern: str) -> None:
    with pytest.raises(UnsatisfiableError):
        matching(pattern, charge=free)


@pytest.mark.parametrize("pattern", ["((a{1000}){1000}){1000}", "(?:){1000000}", "[^a]" * 5000])
def test_each_step_is_charged_before_it_is_taken(pattern: str) -> None:
    spent = 0

    def charge(cost: int) -> None:
        nonlocal spent
        spent += cost
        if spent > 30_000:
            raise OverflowError

    with pytest.raises(OverflowError):
        matching(pattern, charge=charge)
    assert spent < 60_000


atoms = st.sampled_from(
    ["a", "\\d", "\\S", "\\W", ".", "[a-f]", "[^a-f\\d]", "[\\s_-]", "-", "^", "$"]
)
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.builds(
            lambda part, times: f"({part}){times}", inner, st.sampled_from("*+?") | st.just("{2,3}")
        ),
    ),
    max_leaves=8,
)


@examples(400)
@given(patterns)
def test_a_string_that_is_made_matches(pattern: str) -> None:
    try:
        found = matching(pattern, charge=free)
    except UnsatisfiableError:
        return
    assert re.search(pattern, found)

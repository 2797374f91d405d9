from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.measuring import Overhead, overhead
from service.upstream.prompt_sizes import CONVERSATIONS

USER, TALK, LONG, SYSTEM, BOTH = CONVERSATIONS


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({USER: 14}, (14, 0)),
        ({USER: 14, TALK: 24, LONG: 34}, (9, 5)),
        # Without a system message, the template writes its own.
        ({USER: 30, TALK: 40, LONG: 50, SYSTEM: 20, BOTH: 30}, (25, 5)),
        # A system message has a date.
        ({USER: 14, TALK: 24, LONG: 34, SYSTEM: 50, BOTH: 60}, (40, 5)),
        # A part of a token per message is a whole one.
        ({USER: 10, TALK: 11, LONG: 13}, (9, 1)),
        ({USER: 10, TALK: 13, LONG: 16}, (8, 2)),
        # The later messages are longer.
        ({USER: 14, TALK: 24, LONG: 64}, (0, 20)),
    ],
)
def test_the_numbers_cover_each_prompt(
    sizes: Mapping[tuple[str, ...], int], expected: tuple[int, int]
) -> None:
    assert overhead(sizes) == Overhead(*expected)


@given(st.dictionaries(st.sampled_from(CONVERSATIONS), st.integers(1, 10_000), min_size=1))
def test_no_prompt_is_larger(sizes: dict[tuple[str, ...], int]) -> None:
    found = overhead(sizes)

    for roles, tokens in sizes.items():
        assert found.prompt + found.message * len(roles) >= tokens


@given(st.integers(0, 500), st.integers(0, 30))
def test_a_regular_template_is_found_exactly(prompt: int, message: int) -> None:
    sizes = {roles: prompt + message * len(roles) for roles in CONVERSATIONS}

    assert overhead(sizes) == Overhead(prompt, message)

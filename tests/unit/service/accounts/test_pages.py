import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.accounts import pages

NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)


@given(st.text(st.characters(exclude_categories=["Cs"])), NUMBERS)
def test_a_position_is_found_again(of: str, position: list[int]) -> None:
    token = pages.encode(of, *position)

    assert pages.decode(of, token, len(position)) == tuple(position)
    assert re.fullmatch(r"[\w-]*", token, re.ASCII)
    assert len(token) <= 43
    with pytest.raises(pages.TokenError):
        pages.decode(of + "x", token, len(position))
    with pytest.raises(pages.TokenError):
        pages.decode(of, token, len(position) + 1)


@given(st.text())
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(pages.TokenError):
        pages.decode("accounts", token, 1)


@pytest.mark.parametrize(
    ("wanted", "size"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)]
)
def test_a_page_has_a_bounded_size(wanted: int, size: int) -> None:
    assert pages.size(wanted) == size

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion.v1.account_service_pb2 import ListKeysResponse
from service.accounts import inputs, messages, pages
from service.accounts.directory import KeyView

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


@pytest.mark.parametrize(("wanted", "size"), [(0, 38), (1, 1), (38, 38), (100, 38)])
def test_a_page_of_keys_has_fewer(wanted: int, size: int) -> None:
    assert pages.size(wanted, pages.LARGEST_OF_KEYS) == size


def test_the_largest_page_of_keys_is_what_a_client_takes() -> None:
    name, model = "\U0001f600" * inputs.LONGEST_NAME, "\U0001f600" * (inputs.LONGEST_MODEL - 3)
    assert inputs.NAME.accepts(name)
    models = tuple(f"{number:03}{model}" for number in range(inputs.MOST_MODELS))
    assert inputs.MODELS.accepts(models)
    largest = KeyView(
        id=2**63 - 1,
        account=name,
        name=name,
        models=models,
        requests_per_minute=inputs.LARGEST_LIMIT,
        tokens_per_minute=inputs.LARGEST_LIMIT,
        concurrency=inputs.LARGEST_LIMIT,
        expires_at=2**63 - 1,
        revoked_at=2**63 - 1,
        created_at=2**63 - 1,
    )
    answer = ListKeysResponse(
        api_keys=[messages.api_key(largest)] * pages.LARGEST_OF_KEYS,
        next_page_token=pages.encode("keys", 2**63 - 1),
    )

    assert 3_800_000 < answer.ByteSize() < 4_000_000

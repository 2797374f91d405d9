import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion.v1.account_pb2 import AllowedModels, ApiKey, KeyLimits
from chatcompletion.v1.account_service_pb2 import ListApiKeysResponse
from service.accounts import field_rules, messages, page_tokens

TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=256)
POSITIONS = st.lists(st.integers(-(2**63), 2**63 - 1) | TEXTS, max_size=4)


@given(st.text(st.characters(exclude_categories=["Cs"])), POSITIONS)
def test_a_position_is_found_again(of: str, position: list[int | str]) -> None:
    token = page_tokens.encode(of, *position)
    kinds = tuple(map(type, position))

    assert page_tokens.decode(of, token, kinds) == tuple(position)
    assert re.fullmatch(r"[\w-]*", token, re.ASCII)
    for elsewhere, others in ((of + "x", kinds), (of, (*kinds, int)), (of, (*kinds, str))):
        with pytest.raises(page_tokens.TokenError):
            page_tokens.decode(elsewhere, token, others)


def test_the_longest_position_is_a_token() -> None:
    longest = "\U0001f600" * field_rules.LONGEST_NAME, "\U0001f600" * field_rules.LONGEST_MODEL
    position = (2**63 - 1, -(2**63), *longest)

    assert (
        page_tokens.decode("x", page_tokens.encode("x", *position), (int, int, str, str))
        == position
    )


@given(st.text())
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(page_tokens.TokenError):
        page_tokens.decode("accounts", token, (int,))


@pytest.mark.parametrize(
    "position", [[2**63], [True], [1.0], [None], [[1]], {"a": 1}, ["a\0"], ["\ud800"]]
)
def test_a_position_of_other_values_is_refused(position: object) -> None:
    digest = base64.urlsafe_b64decode(page_tokens.encode("accounts") + "==")[:8]
    token = base64.urlsafe_b64encode(digest + json.dumps(position).encode()).decode()
    for kind in (int, str):
        with pytest.raises(page_tokens.TokenError):
            page_tokens.decode("accounts", token, (kind,))


@pytest.mark.parametrize(
    ("wanted", "size"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)]
)
def test_a_page_has_a_bounded_size(wanted: int, size: int) -> None:
    assert page_tokens.size(wanted) == size


@pytest.mark.parametrize(("wanted", "size"), [(0, 38), (1, 1), (38, 38), (100, 38)])
def test_a_page_of_keys_has_fewer(wanted: int, size: int) -> None:
    assert page_tokens.size(wanted, page_tokens.LARGEST_OF_KEYS) == size


def test_the_largest_page_of_keys_is_what_a_client_takes() -> None:
    name, model = (
        "\U0001f600" * field_rules.LONGEST_NAME,
        "\U0001f600" * (field_rules.LONGEST_MODEL - 3),
    )
    assert field_rules.NAME.accepts(name)
    models = tuple(f"{number:03}{model}" for number in range(field_rules.MOST_MODELS))
    assert field_rules.MODELS.accepts(models)
    latest = messages.timestamp(2**63 - 1)
    largest = ApiKey(
        account=name,
        name=name,
        limits=KeyLimits(
            models=AllowedModels(names=models),
            requests_per_minute=field_rules.LARGEST_LIMIT,
            tokens_per_minute=field_rules.LARGEST_LIMIT,
            concurrency=field_rules.LARGEST_LIMIT,
            expire_time=latest,
        ),
        revoke_time=latest,
        create_time=latest,
    )
    answer = ListApiKeysResponse(
        api_keys=[largest] * page_tokens.LARGEST_OF_KEYS,
        next_page_token=page_tokens.encode("keys", 2**63 - 1),
    )

    assert 3_800_000 < answer.ByteSize() < 4_000_000

from typing import Any

import pytest

from service.accounts.account_servicer import AccountServicer

NOTHING: Any = None
"""An argument that the test does not use."""


@pytest.mark.parametrize("token", ["", " ", "fifteen-letters"])
def test_operators_have_a_token_that_cannot_be_guessed(token: str) -> None:
    with pytest.raises(ValueError, match="fewer than 16 characters"):
        AccountServicer(NOTHING, NOTHING, token=token)


def test_sixteen_characters_are_a_token() -> None:
    AccountServicer(NOTHING, NOTHING, token="sixteen-letters!")

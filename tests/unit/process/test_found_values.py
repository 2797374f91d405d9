from decimal import Decimal

import pytest

from process.found_values import found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("nowhere", '"nowhere"'),
        ("größer", '"größer"'),
        ("a\nb", '"a\\nb"'),
        ("\udcff", '"\\udcff"'),
        ("http://127.0.0.1:11434/v2", '"http://127.0.0.1:11434/v2"'),
        ("/etc/chatcompletion/models.toml", '"/etc/chatcompletion/models.toml"'),
        ("x y" * 100, '"' + ("x y" * 100)[:80] + '…"'),
        (-1, "-1"),
        (True, "True"),
        (Decimal("NaN"), "NaN"),
        (["a"], "['a']"),
    ],
)
def test_a_value_is_shown(value: object, shown: str) -> None:
    assert found(value) == shown


@pytest.mark.parametrize(
    "secret",
    [
        *("sk-canary-1", "sk_live_canary", "gsk_canary1", "Bearer canary1", "hf_canary1"),
        *("https://user:canary@h/v1", "https://h/v1?key=canary", "xx0canary0canary0canary0canary"),
        *("postgresql://chat:canary@db/chat", "http://h/eyJ-canary1"),
    ],
)
def test_a_secret_in_a_place_for_something_else_is_not_shown(secret: str) -> None:
    assert found(secret) == f"a value of {len(secret)} characters, which is not shown"
    assert "canary" not in found([secret])


def test_a_place_for_secrets_shows_none() -> None:
    assert found("abc", is_secret=True) == "a value of 3 characters, which is not shown"

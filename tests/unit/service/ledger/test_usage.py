"""Usage totals of entries by hour, key and model."""

from typing import Any

from service.ledger.rows import Entry, EntryKind, Key
from service.ledger.usage import HOUR, OF, SUMS, Total, totals


def entry(amount: int, at: int, **members: Any) -> Entry:
    plain: dict[str, Any] = {
        "account_id": 1,
        "kind": EntryKind.SETTLE,
        "key_id": 1,
        "model": "m",
        "prompt_tokens": 2,
        "completion_tokens": 3,
    }
    return Entry(amount=amount, created_at=at, **{**plain, **members})


def total(start: int, requests: int, charged: int, **of: Any) -> Total:
    """Return the total of some of the entries."""
    plain: dict[str, Any] = {"account_id": 1, "key_id": 1, "model": "m"}
    return Total(
        start=start,
        requests=requests,
        prompt_tokens=2 * requests,
        completion_tokens=3 * requests,
        charged=charged,
        **{**plain, **of},
    )


KEYS = {id_: Key(id=id_, account_id=account) for id_, account in ((1, 1), (2, 1), (3, 2))}


def test_the_columns_are_those_of_a_total() -> None:
    assert (*OF, *SUMS) == Total.__struct_fields__


def test_nothing_is_the_sum_of_nothing_and_of_grants() -> None:
    assert totals([], KEYS) == []
    assert totals([entry(5, 0, kind=EntryKind.GRANT, key_id=None, model=None)], KEYS) == []


def test_what_shares_hour_key_and_model_is_added_up() -> None:
    assert totals(
        [
            entry(-10, HOUR),
            entry(-7, 2 * HOUR - 1, kind=EntryKind.ADJUST),
            entry(-1, 2 * HOUR),
            entry(0, HOUR, key_id=2),
            entry(-4, HOUR, model="n", key_id=3),
        ],
        KEYS,
    ) == [
        total(HOUR, 2, 17),
        total(2 * HOUR, 1, 1),
        total(HOUR, 1, 0, key_id=2),
        total(HOUR, 1, 4, model="n", account_id=2, key_id=3),  # the account of the key
    ]

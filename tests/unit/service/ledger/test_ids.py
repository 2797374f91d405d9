"""Ids of holds."""

from hypothesis import given
from hypothesis import strategies as st

from service.ledger.ids import hold_id

TIMES = st.integers(min_value=0, max_value=2**63 - 1)


@given(TIMES, TIMES)
def test_ids_are_in_the_order_of_time(one: int, other: int) -> None:
    if one != other:
        assert (hold_id(one) < hold_id(other)) is (one < other)


@given(TIMES)
def test_ids_of_one_instant_differ_and_are_of_one_length(now: int) -> None:
    ids = {hold_id(now) for _ in range(10)}
    assert len(ids) == 10
    assert {len(one) for one in ids} == {32}

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.ledger import rate_limits
from service.ledger.rate_limits import MINUTE
from tests.support.examples import examples

REPEATABLE = examples(200)
NOW = 1_800_000_000 * 10**9

LIMITS = st.one_of(
    st.integers(1, 100),
    st.sampled_from([997, 245_003, 1_000_007, 7_000_000, MINUTE - 1, MINUTE, 2 * MINUTE + 1]),
    st.integers(1, 10**11),
)


class Bucket:
    """A token bucket in exact fractions, which refills by one in each interval."""

    def __init__(self, limit: int, interval: Fraction) -> None:
        self.limit = limit
        self.interval = interval
        self.level = Fraction(limit)
        self.at = NOW

    def refill(self, now: int) -> None:
        self.level = min(self.level + Fraction(now - self.at) / self.interval, Fraction(self.limit))
        self.at = now

    def take(self, count: int) -> bool:
        if self.level < count:
            return False
        self.level -= count
        return True

    def give_back(self, count: int) -> None:
        self.level = min(self.level + count, Fraction(self.limit))


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[int, str, int]]]:
    """A limit, and operations at times that never go back."""
    limit = draw(LIMITS)
    counts = st.one_of(st.integers(0, min(limit, 3)), st.integers(0, limit), st.just(limit))
    pauses = st.one_of(
        st.just(0),
        st.integers(0, rate_limits.interval(limit)),
        st.integers(0, MINUTE),
        st.just(MINUTE),
    )
    steps = draw(
        st.lists(st.tuples(pauses, st.sampled_from(["take", "back"]), counts), max_size=30)
    )
    return limit, steps


@REPEATABLE
@given(histories())
@example((7_000_000, [(0, "take", 7_000_000), (0, "take", 466)]))
@example((2 * MINUTE // 3, [(0, "take", 2 * MINUTE // 3), (0, "take", 1)]))
def test_it_admits_what_an_exact_bucket_admits(
    history: tuple[int, list[tuple[int, str, int]]],
) -> None:
    limit, steps = history
    exact = Bucket(limit, Fraction(rate_limits.interval(limit)))
    now, tat = NOW, 0
    for pause, what, count in steps:
        now += pause
        exact.refill(now)
        if what == "back":
            tat = rate_limits.give_back(limit, tat, now, count, now)
            exact.give_back(count)
        else:
            tat, wait = rate_limits.take(limit, tat, now, count)
            missing = count - exact.level
            assert exact.take(count) == (wait == 0)
            assert wait == max(missing, Fraction(0)) * exact.interval
        level = rate_limits.level(limit, tat, now)
        assert level.remaining == exact.level // 1
        assert level.reset == (limit - exact.level) * exact.interval


@REPEATABLE
@given(histories())
def test_it_never_admits_more_than_the_limit_in_any_window(
    history: tuple[int, list[tuple[int, str, int]]],
) -> None:
    limit, steps = history
    now, tat = NOW, 0
    admitted: list[tuple[int, int]] = []
    running: list[int] = []
    for pause, what, count in steps:
        now += pause
        if what == "back":
            if running:
                # The longest running call ends, and returns its unused part.
                number = running.pop(0)
                at, taken = admitted[number]
                unused = min(count, taken)
                tat = rate_limits.give_back(limit, tat, now, unused, at)
                admitted[number] = (at, taken - unused)
            continue
        tat, wait = rate_limits.take(limit, tat, now, count)
        if wait:
            continue
        running.append(len(admitted))
        admitted.append((now, count))
        total = 0
        for start, taken in reversed(admitted):
            total += taken
            assert total <= limit + Fraction(limit * (now - start), MINUTE)


@REPEATABLE
@given(LIMITS)
def test_the_interval_is_less_than_a_nanosecond_too_long(limit: int) -> None:
    exact = Fraction(MINUTE, limit)
    assert exact <= rate_limits.interval(limit) < exact + 1
    assert MINUTE <= rate_limits.depth(limit) < MINUTE + limit


@REPEATABLE
@given(LIMITS, st.data())
def test_one_nanosecond_before_the_wait_is_over_it_does_not_fit(
    limit: int, data: st.DataObject
) -> None:
    tat, wait = rate_limits.take(limit, 0, NOW, limit)
    assert wait == 0
    count = data.draw(st.integers(1, limit))
    same, wait = rate_limits.take(limit, tat, NOW, count)
    assert (same, wait) == (tat, count * rate_limits.interval(limit))
    assert rate_limits.take(limit, tat, NOW + wait - 1, count)[1] == 1
    assert rate_limits.take(limit, tat, NOW + wait, count)[1] == 0


@REPEATABLE
@given(LIMITS, st.integers(NOW - 2 * MINUTE, NOW + 2 * MINUTE))
def test_what_remains_can_be_taken_and_no_more(limit: int, tat: int) -> None:
    level = rate_limits.level(limit, tat, NOW)
    assert 0 <= level.remaining <= limit
    assert rate_limits.take(limit, tat, NOW, level.remaining)[1] == 0
    if level.remaining < limit:
        assert rate_limits.take(limit, tat, NOW, level.remaining + 1)[1] > 0


@REPEATABLE
@given(LIMITS, st.integers(NOW - 2 * MINUTE, NOW + 2 * MINUTE))
def test_after_its_reset_a_bucket_is_full_and_not_before(limit: int, tat: int) -> None:
    level = rate_limits.level(limit, tat, NOW)
    tat = rate_limits.within_reach(limit, tat, NOW)
    assert rate_limits.level(limit, tat, NOW + level.reset) == rate_limits.Level(limit, limit, 0)
    if level.reset:
        assert rate_limits.level(limit, tat, NOW + level.reset - 1).remaining == limit - 1


@REPEATABLE
@given(LIMITS, st.integers(1, 10**13))
def test_a_clock_that_was_set_back_costs_one_bucket_at_the_most(limit: int, back: int) -> None:
    tat, _ = rate_limits.take(limit, 0, NOW, limit)
    now = NOW - back
    assert rate_limits.level(limit, tat, now).remaining == 0
    tat = rate_limits.within_reach(limit, tat, now)
    assert rate_limits.take(limit, tat, now, 1)[1] == rate_limits.interval(limit)
    assert rate_limits.level(limit, tat, now + rate_limits.depth(limit)).remaining == limit


@REPEATABLE
@given(LIMITS, st.integers(1, 10**13), st.data())
def test_what_was_taken_before_the_clock_was_set_back_is_not_given_back(
    limit: int, back: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, limit))
    tat, _ = rate_limits.take(limit, 0, NOW, limit)
    tat = rate_limits.give_back(limit, tat, NOW - back, count, NOW)
    assert rate_limits.level(limit, tat, NOW - back).remaining == 0
    assert rate_limits.level(limit, tat, NOW - back + rate_limits.depth(limit)).remaining == limit


@REPEATABLE
@given(LIMITS, st.data())
def test_giving_back_never_makes_more_than_a_full_bucket(limit: int, data: st.DataObject) -> None:
    tat, _ = rate_limits.take(limit, 0, NOW, data.draw(st.integers(0, limit)))
    for _ in range(3):
        tat = rate_limits.give_back(limit, tat, NOW, limit, NOW)
    assert rate_limits.level(limit, tat, NOW) == rate_limits.Level(limit, limit, 0)
    tat, wait = rate_limits.take(limit, tat, NOW, limit)
    assert wait == 0
    assert rate_limits.level(limit, tat, NOW).remaining == 0


def test_what_was_refilled_since_it_was_taken_is_not_given_back_twice() -> None:
    second = 10**9
    tat, _ = rate_limits.take(60, 0, NOW, 60)
    later = NOW + 40 * second
    tat, wait = rate_limits.take(60, tat, later, 40)  # all that was refilled
    assert wait == 0
    tat = rate_limits.give_back(60, tat, later, 60, NOW)
    assert rate_limits.level(60, tat, later) == rate_limits.Level(60, 20, 40 * second)


@pytest.mark.parametrize("limit", [1, 7, 60, 997, 7_000_000])
def test_taking_nothing_is_always_possible(limit: int) -> None:
    tat, _ = rate_limits.take(limit, 0, NOW, limit)
    assert rate_limits.take(limit, tat, NOW, 0) == (tat, 0)
    assert rate_limits.take(limit, tat + 10**15, NOW, 0)[1] == 0


def test_a_limit_that_was_lowered_makes_nobody_wait_longer_than_a_bucket() -> None:
    tat, _ = rate_limits.take(7, 0, NOW, 7)
    assert rate_limits.take(6, tat, NOW, 1)[1] <= rate_limits.interval(6)


def test_a_limit_of_sixty_is_one_a_second() -> None:
    tat, wait = 0, 0
    for _ in range(60):
        tat, wait = rate_limits.take(60, tat, NOW, 1)
        assert wait == 0
    assert rate_limits.take(60, tat, NOW, 1) == (tat, 10**9)
    assert rate_limits.level(60, tat, NOW) == rate_limits.Level(60, 0, MINUTE)
    assert rate_limits.level(60, tat, NOW + 10**9) == rate_limits.Level(60, 1, MINUTE - 10**9)

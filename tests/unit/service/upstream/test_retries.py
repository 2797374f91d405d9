import pytest

from service import errors
from service.upstream.retries import RetryBudget, asked, delay


@pytest.mark.parametrize(
    ("asked", "remaining", "longest", "random", "wait"),
    [
        (0.0, 60.0, 5.0, 0.0, 0.0),
        (0.0, 60.0, 5.0, 1.0, 0.1),
        (0.0, 60.0, 0.0, 0.5, 0.05),
        (2.0, 60.0, 5.0, 0.0, 2.0),
        (2.0, 60.0, 5.0, 0.5, 2.05),
        (5.0, 60.0, 5.0, 0.0, 5.0),
        (5.001, 60.0, 5.0, 0.0, None),
        (0.001, 60.0, 0.0, 0.0, None),
        (2.0, 2.0, 5.0, 0.0, None),
        (2.0, 2.05, 5.0, 0.5, None),
        (2.0, 2.06, 5.0, 0.5, 2.05),
        (0.0, 0.0, 5.0, 0.0, None),
        (0.0, -1.0, 5.0, 0.0, None),
        (None, 60.0, 5.0, 0.0, None),
    ],
)
def test_the_wait_is_what_was_asked_and_a_little_more_where_it_fits(
    asked: float | None, remaining: float, longest: float, random: float, wait: float | None
) -> None:
    found = delay(asked, remaining=remaining, longest=longest, random=random)

    assert found == (None if wait is None else pytest.approx(wait))


def test_ten_retries_are_there_at_the_start() -> None:
    budget = RetryBudget()

    assert [budget.spend() for _ in range(12)] == [True] * 10 + [False] * 2


def test_a_retry_is_earned_by_five_requests() -> None:
    budget = RetryBudget(balance=0)
    allowed = 0
    for _ in range(1000):
        budget.earn()
        allowed += budget.spend()

    assert 195 <= allowed <= 200


def test_no_more_than_ten_are_saved_up() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()

    assert sum(budget.spend() for _ in range(100)) == 10


def _lost() -> errors.Failure:
    failure = errors.UpstreamError(dispatched=True)
    failure.lost_idle = True
    return failure


@pytest.mark.parametrize(
    ("failure", "wait"),
    [
        (errors.UpstreamUnavailable(), 0.0),
        (errors.UpstreamUnavailable(retry_after=2.0).because("busy"), 2.0),
        (errors.UpstreamUnavailable().because("busy"), 0.5),
        (errors.UpstreamRateLimited(retry_after=2.0), 2.0),
        (errors.UpstreamRateLimited(), None),
        (_lost(), 0.0),
        (errors.UpstreamError(dispatched=True), None),
        (errors.UpstreamAccount(dispatched=True), None),
        (errors.Overloaded(), None),
    ],
)
def test_some_failures_allow_another_request(failure: errors.Failure, wait: float | None) -> None:
    assert asked(failure, 0.5) == wait

import logging

import pytest

from service.accounts.guesses import BURST, INTERVAL, MOST_ADDRESSES, Guesses, address_of
from service.errors import RateLimited

HERE, ELSEWHERE = "ipv4:192.0.2.1:40000", "ipv4:192.0.2.2:40000"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guesses(clock: Clock) -> Guesses:
    return Guesses(clock)


def _guess(guesses: Guesses, peer: str = HERE) -> bool:
    """Return whether a wrong token would be looked at."""
    try:
        guesses.check(peer)
    except RateLimited:
        return False
    guesses.wrong(peer)
    return True


def test_an_address_has_some_guesses_at_once_and_then_one_each_second(
    guesses: Guesses, clock: Clock
) -> None:
    assert [_guess(guesses) for _ in range(BURST + 3)] == [True] * BURST + [False] * 3
    clock.now += INTERVAL
    assert [_guess(guesses), _guess(guesses)] == [True, False]
    clock.now += BURST * INTERVAL
    assert [_guess(guesses) for _ in range(BURST + 1)] == [True] * BURST + [False]


def test_the_rejection_says_when_to_try_again(guesses: Guesses) -> None:
    while _guess(guesses):
        pass
    with pytest.raises(RateLimited) as refused:
        guesses.check(HERE)
    assert refused.value.retryable
    assert refused.value.retry_after == INTERVAL


def test_other_addresses_are_not_locked_out(guesses: Guesses) -> None:
    while _guess(guesses):
        pass
    guesses.check(ELSEWHERE)
    guesses.check("unix:")
    with pytest.raises(RateLimited):
        guesses.check(HERE.replace("40000", "50000"))


def test_right_tokens_do_not_count(guesses: Guesses) -> None:
    for _ in range(10 * BURST):
        guesses.check(HERE)


def test_the_memory_is_bounded(guesses: Guesses) -> None:
    for number in range(MOST_ADDRESSES + 2):
        guesses.wrong(f"ipv4:10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1")
    assert len(guesses._guessers) == MOST_ADDRESSES


def test_a_guesser_has_one_warning_a_minute(
    guesses: Guesses, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "service"):
        for _ in range(BURST - 1):
            guesses.wrong(HERE)
        assert caplog.records == []
        for _ in range(3 * BURST):
            guesses.wrong(HERE)
            clock.now += INTERVAL
        assert [record.message for record in caplog.records] == ["many wrong admin tokens"]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:40000", "192.0.2.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:40000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:40000", "2001:db8:1:2::/64"),
        ("ipv6:[::ffff:192.0.2.1]:40000", "192.0.2.1"),
        ("ipv6:[fe80::1%eth0]:40000", "fe80::/64"),
        ("unix:", "unix"),
        ("unix:/run/a", "unix"),
        ("in-process", "in-process"),
        ("", ""),
    ],
)
def test_the_port_of_a_caller_does_not_matter(peer: str, address: str) -> None:
    assert address_of(peer) == address

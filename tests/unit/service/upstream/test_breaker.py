from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.upstream.breaker import WINDOW, Breaker
from service.upstream.verdicts import Verdict
from service.upstream_report import BreakerState
from tests.support.examples import examples

PAUSE = 5.0


@dataclass
class Bench:
    """A breaker, and the states that it had."""

    failures: int = 5
    states: list[BreakerState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breaker = Breaker(failures=self.failures, pause=PAUSE, changed=self.states.append)

    def calls(self, *verdicts: Verdict, now: float = 0.0, account: str = "a") -> None:
        """Let calls through, one after the other."""
        for verdict in verdicts:
            assert self.breaker.wait(now) == 0
            self.breaker.end(self.breaker.enter(), verdict, now, account)


def test_it_opens_after_consecutive_failures() -> None:
    bench = Bench()
    bench.calls("failed", "failed", "failed", "failed", "served")
    bench.calls("failed", "failed", "failed", "failed")
    assert bench.states == []

    bench.calls("failed", now=7.0)

    assert bench.states == ["open"]
    assert bench.breaker.wait(7.0) == PAUSE
    assert bench.breaker.wait(11.0) == 1.0


def test_it_opens_if_half_of_the_last_calls_failed() -> None:
    bench = Bench()
    bench.calls(*(("served", "failed") * (WINDOW // 2 - 1)), "served")
    assert bench.states == []

    bench.calls("failed")

    assert bench.states == ["open"]


def test_fewer_than_half_do_not_open_it() -> None:
    bench = Bench()
    bench.calls(*(("served", "failed", "served") * 100))
    assert bench.states == []


@pytest.mark.parametrize("verdict", ["refused", "unknown"])
def test_other_verdicts_do_not_count(verdict: Verdict) -> None:
    bench = Bench()
    for _ in range(100):
        bench.calls(verdict)
    assert bench.states == []

    bench.calls("failed", verdict, "failed", verdict, "failed", verdict, "failed", verdict)
    assert bench.states == []
    bench.calls("failed")
    assert bench.states == ["open"]


def test_one_that_never_opens() -> None:
    bench = Bench(failures=0)
    for _ in range(100):
        bench.calls("failed")
    assert bench.states == []


@pytest.mark.parametrize("verdict", ["served", "refused"])
def test_a_probe_that_is_answered_closes_it(verdict: Verdict) -> None:
    bench = Bench(failures=1)
    bench.calls("failed")
    probe = bench.breaker
    assert probe.wait(PAUSE) == 0
    permit = probe.enter()
    assert probe.is_probe(permit)
    assert probe.wait(PAUSE) > 0

    probe.end(permit, verdict, PAUSE)

    assert bench.states == ["open", "half_open", "closed"]
    assert not probe.is_probe(permit)
    assert probe.wait(PAUSE) == 0


def test_a_probe_that_fails_opens_it_for_another_pause() -> None:
    bench = Bench(failures=1)
    bench.calls("failed")
    bench.calls("failed", now=PAUSE)

    assert bench.states == ["open", "half_open", "open"]
    assert bench.breaker.wait(PAUSE) == PAUSE


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    bench = Bench(failures=1)
    bench.calls("failed")
    bench.calls("unknown", "unknown", "served", now=PAUSE)

    assert bench.states == ["open", "half_open", "closed"]


def test_a_call_from_before_a_change_changes_nothing() -> None:
    bench = Bench(failures=1)
    breaker = bench.breaker
    early = [breaker.enter() for _ in range(4)]
    breaker.end(early[0], "failed", 0.0)
    breaker.end(early[1], "served", 0.0)
    assert bench.states == ["open"]
    bench.calls("served", now=PAUSE)
    breaker.end(early[2], "failed", PAUSE)

    assert bench.states == ["open", "half_open", "closed"]


def test_failures_from_before_do_not_count_after_it_closed() -> None:
    bench = Bench(failures=2)
    bench.calls("failed", "failed")
    bench.calls("served", "failed", now=PAUSE)

    assert bench.states == ["open", "half_open", "closed"]


def test_one_account_alone_opens_it_not_while_others_are_served() -> None:
    bench = Bench()
    bench.calls("served", account="b")
    # Its own calls that are served, of which it can make as many as it likes, change nothing.
    for _ in range(20):
        bench.calls("served", "broke", "broke", "broke", "broke", "broke", "served", now=60.0)
    assert bench.states == []

    bench.calls("broke", "broke", now=60.0, account="b")

    assert bench.states == []  # a call of the other account was served in between


def test_failures_of_several_accounts_open_it() -> None:
    bench = Bench()
    bench.calls("served", account="c")
    bench.calls("served", account="b")
    bench.calls("broke", "broke", "broke", "broke")
    assert bench.states == []
    bench.calls("broke", "broke", account="b")
    assert bench.states == ["open"]


@pytest.mark.parametrize(
    ("verdict", "now", "other"), [("failed", 0.0, "b"), ("broke", 60.1, "b"), ("broke", 0.0, "a")]
)
def test_one_account_alone_opens_it_otherwise(verdict: Verdict, now: float, other: str) -> None:
    """It could not be reached, or nobody else was served within a minute, or there is no other."""
    bench = Bench()
    bench.calls("served", account=other)
    bench.calls(*[verdict] * 5, now=now)
    assert bench.states == ["open"]


def test_a_probe_that_breaks_opens_it_again_and_a_call_of_before_the_pause_is_remembered() -> None:
    bench = Bench()
    bench.calls("served", account="b")
    bench.calls("failed", "failed", "failed", "failed", "failed")
    bench.calls("broke", now=PAUSE)
    assert bench.states == ["open", "half_open", "open"]
    bench.calls("served", now=2 * PAUSE)
    for _ in range(20):
        bench.calls("broke", now=2 * PAUSE)
    assert bench.breaker.state == "closed"


_VERDICTS = st.sampled_from(["served", "refused", "failed", "broke", "unknown"])


@examples(500)
@given(
    failures=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5), _VERDICTS), max_size=200),
)
def test_an_open_breaker_gets_no_call_but_the_probe(
    failures: int, steps: list[tuple[float, int, Verdict]]
) -> None:
    """Calls overlap and end in any order; each of them knows when the breaker opened last."""
    bench = Bench(failures=failures)
    breaker, now, opened, running = bench.breaker, 0.0, 0.0, []
    for wait, which, verdict in steps:
        now += wait
        if breaker.wait(now) == 0:
            if breaker.state == "open":
                assert now >= opened + PAUSE
            running.append(breaker.enter())
            assert sum(map(breaker.is_probe, running)) <= 1
        else:
            assert breaker.wait(now) <= PAUSE
        if running and which < len(running):
            before = breaker.state
            breaker.end(running.pop(which), verdict, now)
            if breaker.state == "open" != before:
                opened = now
    # Nobody waits for ever: without calls in flight, a pause later a call goes through.
    for permit in running:
        breaker.end(permit, "unknown", now)
    assert breaker.wait(now + PAUSE) == 0

from typing import Any

import pytest

from service.load_reports import WINDOW, Load
from tests.support.samples import record


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A load with a clock and a CPU clock of the test."""

    def __init__(self, most: int = 10) -> None:
        self.clock, self.cpu = Clock(), Clock()
        self.load = Load(most, clock=self.clock, cpu=self.cpu)

    def call(self, seconds: float, **members: Any) -> None:
        """Run one call and nothing beside it."""
        self.load.begin()
        self.clock.now += seconds
        self.load.end(record(**members))


def test_the_load_is_an_average() -> None:
    bench = Bench()
    bench.call(1.0, completion_tokens=8)
    bench.clock.now += 1.0
    bench.cpu.now += 0.5

    report = bench.load.report()
    assert report.application_utilization == pytest.approx(0.05)
    assert report.cpu_utilization == pytest.approx(0.25)
    assert (report.rps_fractional, report.eps) == (0.5, 0.0)
    assert dict(report.named_metrics) == {"calls_in_flight": 0.5, "output_tokens_per_second": 4.0}
    assert dict(report.request_cost) == {}


def test_calls_that_still_run_count() -> None:
    bench = Bench()
    bench.load.begin()
    bench.load.begin()
    bench.clock.now += 2.0

    assert bench.load.report().application_utilization == pytest.approx(0.2)


def test_a_call_has_its_cost() -> None:
    bench = Bench()
    cost = record(charge=7, prompt_tokens=3, completion_tokens=2)

    assert dict(bench.load.report(cost).request_cost) == {
        "charge_nano_credits": 7.0,
        "input_tokens": 3.0,
        "output_tokens": 2.0,
    }
    assert bench.load.report(record()).request_cost["charge_nano_credits"] == 0.0


@pytest.mark.parametrize(
    ("reason", "errors"),
    [("", 0), ("INVALID_REQUEST", 0), ("UPSTREAM_ERROR", 1), ("OVERLOADED", 1)],
)
def test_only_failures_of_the_service_are_errors(reason: str, errors: int) -> None:
    bench = Bench()
    bench.call(1.0, reason=reason)

    assert (bench.load.report().rps_fractional, bench.load.report().eps) == (1.0, float(errors))


def test_an_average_forgets_what_is_two_windows_old() -> None:
    bench = Bench()
    for _ in range(10):
        bench.call(0.1)
    bench.clock.now += WINDOW
    assert bench.load.report().rps_fractional == pytest.approx(10 / 6)

    bench.clock.now += WINDOW
    assert bench.load.report().rps_fractional == 0.0


def test_a_report_of_no_time_is_no_division_by_zero() -> None:
    assert Bench().load.report().rps_fractional == 0.0

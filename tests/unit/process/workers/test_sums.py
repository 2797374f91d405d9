from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from process import metrics
from process.workers.frames import Family, families
from process.workers.sums import Sums


class Process:
    """The metrics of a worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ("model",), registry=self.registry)
        self.open = Gauge("open", "Open.", registry=self.registry)
        self.seconds = Histogram("seconds", "Seconds.", registry=self.registry, buckets=(1.0, 2.0))

    def families(self) -> list[Family]:
        """Return what the worker answers."""
        return families(self.registry)


def values(total: Sequence[Family]) -> dict[str, float]:
    """Return every value by its name and labels."""
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in total
        for sample in family.samples
    }


def test_counters_histograms_and_gauges_are_added_up() -> None:
    first, second, sums = Process(), Process(), Sums()
    first.calls.labels("a").inc(2)
    second.calls.labels("a").inc(3)
    second.calls.labels("b").inc()
    first.open.set(4)
    second.open.set(1)
    first.seconds.observe(0.5)
    second.seconds.observe(1.5)
    sums.take(1, first.families())
    sums.take(2, second.families())

    total = sums.total((1, 2))

    assert [family.name for family in total] == ["calls", "open", "seconds"]
    assert [family.type for family in total] == ["counter", "gauge", "histogram"]
    assert values(total) == {
        "calls_total,a": 5.0,
        "calls_total,b": 1.0,
        "open": 5.0,
        "seconds_bucket,1.0": 1.0,
        "seconds_bucket,2.0": 2.0,
        "seconds_bucket,+Inf": 2.0,
        "seconds_count": 2.0,
        "seconds_sum": 2.0,
    }


def test_of_a_worker_that_ended_the_counters_stay_and_the_gauges_go() -> None:
    sums = Sums()
    for worker, calls in (("old", 2), ("new", 3), ("newer", 4)):
        process = Process()
        process.calls.labels("a").inc(calls)
        process.open.set(7)
        process.seconds.observe(0.5)
        sums.take(worker, process.families())
        if worker != "newer":
            sums.end(worker)

    found = values(sums.total(("newer",)))

    assert (found["calls_total,a"], found["open"], found["seconds_count"]) == (9.0, 7.0, 3.0)
    sums.end("newer")
    found = values(sums.total(()))
    assert (found["calls_total,a"], found["seconds_count"]) == (9.0, 3.0)
    assert "open" not in found


def test_of_a_worker_that_does_not_answer_the_last_counters_count() -> None:
    silent, heard, sums = Process(), Process(), Sums()
    for process in (silent, heard):
        process.calls.labels("a").inc(2)
        process.open.set(1)
    sums.take("silent", silent.families())
    heard.calls.labels("a").inc()
    sums.take("heard", heard.families())

    found = values(sums.total(("heard",)))

    assert (found["calls_total,a"], found["open"]) == (5.0, 1.0)


def test_a_worker_that_never_answered_ends_without_a_trace() -> None:
    sums = Sums()
    sums.end("unknown")

    assert sums.total(()) == []


def test_of_what_cannot_be_added_up_there_is_one_value() -> None:
    sums = Sums()
    for worker, is_up, started in ((1, 1, 20.0), (2, 0, 10.0)):
        registry = CollectorRegistry()
        metrics.describe(registry)
        Gauge("store_up", "Up.", registry=registry).set(is_up)
        Gauge("worker_start_time_seconds", "Start.", registry=registry).set(started)
        Gauge("chat_events_pending", "Events.", registry=registry).set(worker)
        Gauge("chat_events_dead", "Dead.", registry=registry).set(-worker)
        sums.take(worker, families(registry))

    found = values(sums.total((1, 2)))

    assert (found["chat_events_pending"], found["chat_events_dead"]) == (2, -1)
    assert (found["store_up"], found["worker_start_time_seconds"]) == (0, 10.0)
    assert [value for name, value in found.items() if name.startswith("chat_build_info")] == [1]

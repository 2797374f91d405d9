from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from process.workers.frames import Family, families
from process.workers.sums import Sums


class Process:
    """The metrics of a worker."""

    def __init__(self, created: float = 1.0) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ("model",), registry=self.registry)
        self.open = Gauge("open", "Open.", registry=self.registry)
        self.seconds = Histogram("seconds", "Seconds.", registry=self.registry, buckets=(1.0, 2.0))
        self._created = created

    def families(self) -> list[Family]:
        """Return what the worker answers, as if it had begun at a known time."""
        found = families(self.registry)
        return [
            Family(
                each.name,
                each.documentation,
                each.type,
                [
                    type(sample)(sample.name, sample.labels, self._created)
                    if sample.name.endswith("_created")
                    else sample
                    for sample in each.samples
                ],
            )
            for each in found
        ]


def values(total: Sequence[Family]) -> dict[str, float]:
    """Return every value by its name and labels."""
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in total
        for sample in family.samples
    }


def test_counters_histograms_and_gauges_are_added_up() -> None:
    first, second, sums = Process(5.0), Process(3.0), Sums()
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
        "calls_created,a": 3.0,
        "calls_created,b": 3.0,
        "open": 5.0,
        "seconds_bucket,1.0": 1.0,
        "seconds_bucket,2.0": 2.0,
        "seconds_bucket,+Inf": 2.0,
        "seconds_count": 2.0,
        "seconds_sum": 2.0,
        "seconds_created": 3.0,
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

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import process.metrics  # noqa: F401  (switches times of creation off)
from process.workers.frames import (
    HEAD,
    Scrape,
    Scraped,
    Serving,
    Signal,
    ToSupervisor,
    ToWorker,
    families,
    frame,
    to_supervisor,
    to_worker,
)


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("calls", "Calls, \\ and\nmore.", ("model",), registry=registry).labels('a"b').inc(3)
    Gauge("open", "Open.", registry=registry).set(2.5)
    Histogram("seconds", "Seconds.", registry=registry, buckets=(1.0, 2.0)).observe(1.5)
    return registry


@pytest.mark.parametrize("message", [Signal(15), Scrape(3, 1)])
def test_a_message_to_a_worker_comes_back_from_its_frame(message: ToWorker) -> None:
    sent = frame(message)

    assert HEAD.unpack(sent[: HEAD.size]) == (len(sent) - HEAD.size,)
    assert to_worker.decode(sent[HEAD.size :]) == message


@pytest.mark.parametrize("message", [Serving(), Scraped(3, [])])
def test_a_message_to_the_supervisor_comes_back_from_its_frame(message: ToSupervisor) -> None:
    assert to_supervisor.decode(frame(message)[HEAD.size :]) == message


def test_metrics_cross_as_they_are(registry: CollectorRegistry) -> None:
    sent = families(registry)
    message = to_supervisor.decode(frame(Scraped(1, sent))[HEAD.size :])

    assert message == Scraped(1, sent)
    assert [(family.name, family.type, len(family.samples)) for family in sent] == [
        ("calls", "counter", 1),
        ("open", "gauge", 1),
        ("seconds", "histogram", 5),
    ]
    assert sent[0].documentation == "Calls, \\ and\nmore."
    assert (sent[0].samples[0].labels, sent[0].samples[0].value) == ({"model": 'a"b'}, 3.0)
    assert sent[2].samples[-1].value == 1.5

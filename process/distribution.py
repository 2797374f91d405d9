"""A histogram that costs little to observe.

A value of prometheus-client has a lock, and its histogram looks at one bucket after the other. The
values here are plain numbers that only one thread changes: the thread of the event loop. Another
thread reads them for a scrape.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Distribution(Collector):
    """A histogram by labels.

    Args:
        name: The name of the metric.
        documentation: Its description.
        labels: The names of its labels.
        registry: The registry that collects it.
        buckets: The upper bounds of the buckets, ascending, without infinity.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        registry: CollectorRegistry,
        buckets: Sequence[float],
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._bounds = tuple(buckets)
        self._names = [*map(floatToGoString, buckets), "+Inf"]
        self._counts: dict[tuple[str, ...], list[float]] = {}
        """For each set of labels, the count of each bucket, and the sum of the values."""
        registry.register(self)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        """Count a value under the values of its labels. Call it from one thread only."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0.0] * (len(self._names) + 1)
        counts[bisect_left(self._bounds, value)] += 1
        counts[-1] += value

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Return the metric without values."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return the metric with its values."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, counts in [*self._counts.items()]:
            *buckets, total = [*counts]
            family.add_metric(
                labels, [*zip(self._names, accumulate(buckets), strict=True)], sum_value=total
            )
        yield family

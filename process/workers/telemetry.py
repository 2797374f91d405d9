"""The metrics of the supervisor itself, in addition to the sums of its workers."""

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.registry import Collector


class Telemetry:
    """The metrics of a supervisor, in each of its registries."""

    def __init__(self) -> None:
        self.serving = Gauge("chat_workers", "Workers that serve.", registry=None)
        self.restarts = Counter(
            "chat_worker_restarts", "Workers that ended and were started again.", registry=None
        )
        self.unanswered = Counter(
            "chat_worker_scrapes_unanswered",
            "Questions for metrics that a worker did not answer in time.",
            registry=None,
        )

    def registry(self, *before: Collector) -> CollectorRegistry:
        """Return a new registry with these metrics.

        Args:
            before: What is asked first, and may count here.
        """
        registry = CollectorRegistry()
        for collector in before:
            registry.register(collector)
        for metric in (self.serving, self.restarts, self.unanswered):
            registry.register(metric)
        return registry

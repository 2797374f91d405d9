"""The metrics of the delivery of events."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class WebhookMetrics:
    """The metrics of the delivery of events by one process.

    Args:
        registry: The registry of the metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pending = Gauge(
            "chat_events_pending", "Events that wait for their delivery.", registry=registry
        )
        self._dead = Gauge("chat_events_dead", "Dead letters.", registry=registry)
        self._age = Gauge(
            "chat_events_oldest_age_seconds",
            "Age of the oldest event that waits; 0 if none does.",
            registry=registry,
        )
        self._attempts = Counter(
            "chat_events_attempts",
            "Attempts to deliver an event, by result.",
            ("result",),
            registry=registry,
        )
        for result in ("delivered", "failed", "dead"):
            self._attempts.labels(result)

    def delivered(self) -> None:
        """Count an event that was delivered."""
        self._attempts.labels("delivered").inc()

    def failed(self, *, is_dead: bool) -> None:
        """Count an attempt that failed, the last one if the event is dead."""
        self._attempts.labels("dead" if is_dead else "failed").inc()

    def gave_up(self, count: int) -> None:
        """Count events that are dead because of their age."""
        self._attempts.labels("dead").inc(count)

    def waiting(self, pending: int, dead: int, age: float) -> None:
        """Set how much is in the outbox.

        Args:
            pending: The number of events that wait.
            dead: The number of dead letters.
            age: The age of the oldest event that waits, in seconds.
        """
        self._pending.set(pending)
        self._dead.set(dead)
        self._age.set(age)

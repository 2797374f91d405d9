"""The metrics of upstreams that belong to no call: their calls, breakers, keys, fallbacks."""

import logging
from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge

from process import log
from service.upstream_report import BREAKER_STATES, BreakerState

_log = logging.getLogger(__name__)


class UpstreamMetrics:
    """The state of each upstream.

    Args:
        registry: The registry of the metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Gauge(
            "chat_upstream_calls",
            "Calls with a place at the upstream, and calls that wait for one.",
            ("upstream", "state"),
            registry=registry,
        )
        self._breakers = Gauge(
            "chat_upstream_breaker_state",
            "Whether the breaker of the upstream is in the state: 1 or 0.",
            ("upstream", "state"),
            registry=registry,
        )
        self._key_refusals = cache(
            Counter(
                "chat_upstream_key_refusals",
                "Keys of the upstream that it refused, each once while it is set aside.",
                ("upstream",),
                registry=registry,
            ).labels
        )
        self._left = cache(
            Counter(
                "chat_upstream_fallbacks",
                "Requests that went to another upstream, because this one did no work for them.",
                ("upstream",),
                registry=registry,
            ).labels
        )

    def watch(
        self,
        name: str,
        breaker: BreakerState,
        *,
        running: Callable[[], float],
        waiting: Callable[[], float],
    ) -> None:
        """Report the state of an upstream.

        Args:
            name: Its name.
            breaker: The state of its breaker; `breaker_changed` reports each later one.
            running: Returns the number of calls with a place there.
            waiting: Returns the number of calls that wait for one.
        """
        self._calls.labels(name, "running").set_function(running)
        self._calls.labels(name, "waiting").set_function(waiting)
        for each in BREAKER_STATES:
            self._breakers.labels(name, each).set(each == breaker)

    def forget(self, name: str) -> None:
        """Report no state of an upstream any more."""
        for state in ("running", "waiting"):
            self._calls.remove(name, state)
        for breaker in BREAKER_STATES:
            self._breakers.remove(name, breaker)

    def left(self, name: str) -> None:
        """Count a request that goes to another upstream than this one, which did no work."""
        self._left(name).inc()

    def key_refused(self, name: str, number: int) -> None:
        """Count a key that an upstream refused, also as a log line.

        Args:
            name: The name of the upstream.
            number: The place of the key in the list of its keys, from 1 on.
        """
        self._key_refusals(name).inc()
        _log.error("upstream key refused", extra=log.fields(upstream=name, key_number=number))

    def breaker_changed(self, name: str, state: BreakerState) -> None:
        """Report a new state of the breaker of an upstream, also as a log line."""
        for each in BREAKER_STATES:
            self._breakers.labels(name, each).set(each == state)
        level = logging.WARNING if state == "open" else logging.INFO
        _log.log(level, "upstream breaker", extra=log.fields(upstream=name, state=state))

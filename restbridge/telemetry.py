"""The names of the bridge's metrics and the fields of its log lines.

    end(exchange) -> histograms and gauges on CHAT_BRIDGE_METRICS_LISTEN
                  -> one log line

Metric names follow OpenTelemetry's semantic conventions for HTTP servers, in Prometheus' spelling.
`error_type` is the reason, empty for success. The number of labels is bounded: routes are
templates, methods are those of the contract, reasons are those of the tables. Finding the metric
for a set of labels costs more than counting, so each is cached.
"""

import logging
from functools import cache
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from process import log
from process.distribution import Distribution
from restbridge.error_responses import LEFT, ErrorResponse
from restbridge.exchange_trace import ExchangeTrace

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD: Final = "_OTHER"
"""The label of any other method, which the conventions define."""

TLS_HANDSHAKE: Final = "TLS_HANDSHAKE"
"""The reason of a connection whose TLS handshake failed."""

# The buckets of the conventions, and larger ones, because completions can take minutes.
_DURATION_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
_MILLISECONDS: Final = 1000

_log = logging.getLogger(__name__)


class RecordedExchange(Protocol):
    """The attributes of an exchange that are recorded."""

    request_id: str
    trace: ExchangeTrace | None
    began: float
    status: int
    failure: ErrorResponse | None
    first_event: float | None
    events: int

    @property
    def trace_id(self) -> str:
        """The id of its trace; "" for none."""

    @property
    def span_id(self) -> str:
        """The id of its span; "" for none."""


class Telemetry:
    """The metrics of one bridge.

    Args:
        registry: The registry of the metrics; None creates one.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._duration = Distribution(
            "http_server_request_duration_seconds",
            "Duration of requests. The count is the number of requests.",
            ("http_request_method", "http_route", "http_response_status_code", "error_type"),
            registry=self.registry,
            buckets=_DURATION_BUCKETS,
        )
        self._active = Gauge(
            "http_server_active_requests", "Requests in flight.", registry=self.registry
        )
        self.connections = Gauge(
            "http_server_open_connections", "Open connections.", registry=self.registry
        )
        self._first_event = Histogram(
            "chat_bridge_time_to_first_event_seconds",
            "Time from the head of a streamed request to its first event.",
            registry=self.registry,
            buckets=_DURATION_BUCKETS,
        )
        self.streams = Gauge("chat_bridge_streams_open", "Open streams.", registry=self.registry)
        self._events = Counter(
            "chat_bridge_events", "Events sent, without comments.", registry=self.registry
        )
        self._refused = cache(
            Counter(
                "chat_bridge_refused_connections",
                "Connections closed before a request was parsed.",
                ("error_type",),
                registry=self.registry,
            ).labels
        )

    def begin(self) -> None:
        """Count an exchange as in progress."""
        self._active.inc()

    def end(self, exchange: RecordedExchange, *, method: str, route: str, now: float) -> None:
        """Record an exchange that ended, in the metrics and as a log line."""
        duration = now - exchange.began
        method = method if method in METHODS else OTHER_METHOD
        # If no status was sent, record the failure's own.
        status = exchange.status or (exchange.failure.status if exchange.failure else 0)
        if exchange.failure is LEFT:
            status = LEFT.status
        reason = exchange.failure.reason if exchange.failure else ""
        self._active.dec()
        self._duration.observe((method, route, str(status), reason), duration)
        members: dict[str, object] = {
            "request_id": exchange.request_id,
            "method": method,
            "route": route,
            "status": status,
            "reason": reason or "OK",
            "duration_ms": round(duration * _MILLISECONDS, 1),
        }
        if exchange.trace_id:
            members["trace_id"] = exchange.trace_id
        if exchange.span_id:
            members["span_id"] = exchange.span_id
        if exchange.failure is not None and exchange.failure.why:
            members["why"] = exchange.failure.why
        if exchange.first_event is not None:
            to_first = exchange.first_event - exchange.began
            self._first_event.observe(to_first)
            self._events.inc(exchange.events)
            members["first_event_ms"] = round(to_first * _MILLISECONDS, 1)
            members["events"] = exchange.events
        log.line(_log, logging.INFO, "request", members)
        if exchange.trace is not None:
            exchange.trace.end(
                method=method,
                route=route,
                status=status,
                reason=reason,
                request_id=exchange.request_id,
            )

    def handshake_failed(self, why: str) -> None:
        """Record a connection whose TLS handshake failed, and why."""
        self._refused(TLS_HANDSHAKE).inc()
        _log.info("tls handshake failed", extra=log.fields(why=why))

    def refused(self, failure: ErrorResponse, request_id: str) -> None:
        """Record a connection that was closed before a request was parsed."""
        self._refused(failure.reason).inc()
        _log.info(
            "refused connection",
            extra=log.fields(request_id=request_id, status=failure.status, reason=failure.reason),
        )

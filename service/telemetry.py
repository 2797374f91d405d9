"""The names of the service's metrics and the fields of its log lines.

    end(call) -> histograms and counters on CHAT_METRICS_LISTEN
              -> one log line

Metric names follow OpenTelemetry's semantic conventions for generative AI, in Prometheus' spelling.
`error_type` is the reason, empty for success. The number of labels is bounded: methods and reasons
of the contract, and entries of the models file. Finding the metric for a set of labels costs more
than counting, so each is cached.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from process import log
from process.distribution import Distribution
from service.upstream_metrics import UpstreamMetrics
from service.upstream_report import OPERATORS, UpstreamReport, status_label
from service.webhook_metrics import WebhookMetrics

UNKNOWN_MODEL: Final = "unknown"
"""The label of a call whose model was not resolved."""

NO_RESPONSE: Final = "none"
"""The label of a request that got no response."""

_ERRORS: Final = frozenset({"INTERNAL"})
"""The reasons, besides those of the upstream, that are logged as errors."""

_log = logging.getLogger(__name__)

# The buckets of the conventions.
_DURATION_BUCKETS = tuple(0.01 * 2**power for power in range(17))
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0),
)
_PER_TOKEN_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    *(0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
_TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))
_UPSTREAM_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
_CLOSE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(kw_only=True, slots=True)
class CallRecord:
    """The recorded attributes of a call, filled while it runs and recorded when it ends.

    Times are readings of a monotonic clock, in seconds.
    """

    method: str
    """The RPC's name, such as `StreamChatCompletion`."""
    request_id: str
    started: float
    trace_id: str = ""
    """The id of the trace; "" for none."""
    span_id: str = ""
    """The id of the span of the call; "" if spans are not exported."""
    model: str = UNKNOWN_MODEL
    """The name that the caller used, if it is configured."""
    pattern: str = ""
    """The pattern of the models file that matched the name; "" if the name has its own entry."""
    first_chunk: float | None = None
    last_chunk: float | None = None
    chunks: int = 0
    """The number of chunks that were sent to the caller."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    """Whether the tokens were counted, not reported by the upstream."""
    upstream_attempts: int = 0
    reason: str = ""
    """The reason of the failure; "" for success."""
    mended: int = 0
    """The number of the upstream's documents that could be read only after they were mended."""
    overran: bool = False
    """Whether the stream was cut, because the upstream exceeded the output limit."""
    account: str = ""
    """The name of the caller's account."""
    key_name: str = ""
    """The name of the caller's key, never the key."""
    violations: tuple[str, ...] = ()
    """The paths of the members at fault, never their values."""
    settings: tuple[str, ...] = ()
    """The settings that accept these members."""
    upstream: str = ""
    """The name of the upstream to which a request was sent; "" for none."""
    upstream_status: int = 0
    """The HTTP status of its last response; 0 for none."""
    upstream_seconds: float | None = None
    """The time to the response headers of its last response, or to the failure without a response,
    in seconds; None if no request was sent."""
    charge: int | None = None
    """The charge in nano-credits; None if nothing was charged."""
    upstream_report: UpstreamReport | None = None
    """Why the call failed at the upstream; None if it did not."""

    def note_chunks(self, count: int, now: float) -> None:
        """Count chunks that are sent to the caller together."""
        if self.first_chunk is None:
            self.first_chunk = now
        self.last_chunk = now
        self.chunks += count


class Telemetry:
    """The metrics of one process.

    Args:
        registry: The registry of the metrics; None creates one.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        call = ("rpc_method", "gen_ai_request_model")
        self._duration = Distribution(
            "gen_ai_server_request_duration_seconds",
            "Duration of calls. The count is the number of calls.",
            (*call, "error_type"),
            registry=self.registry,
            buckets=_DURATION_BUCKETS,
        )
        self._first_token = Distribution(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from the arrival of a streamed call to its first chunk.",
            ("gen_ai_request_model",),
            registry=self.registry,
            buckets=_FIRST_TOKEN_BUCKETS,
        )
        self._per_token = Distribution(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time between the chunks of a streamed call after its first.",
            ("gen_ai_request_model",),
            registry=self.registry,
            buckets=_PER_TOKEN_BUCKETS,
        )
        self._tokens = Distribution(
            "gen_ai_client_token_usage",
            "Tokens of a call, reported by the upstream or otherwise counted.",
            ("gen_ai_request_model", "gen_ai_token_type"),
            registry=self.registry,
            buckets=_TOKEN_BUCKETS,
        )
        self._in_flight = cache(
            Gauge(
                "chat_calls_in_flight", "Calls that run.", ("rpc_method",), registry=self.registry
            ).labels
        )
        self.upstream_streams = Gauge(
            "chat_upstream_streams_open", "Streams open at the upstream.", registry=self.registry
        )
        self._upstream_retries = Counter(
            "chat_upstream_retries", "Requests sent to the upstream again.", registry=self.registry
        )
        self._upstream_duration = Distribution(
            "chat_upstream_request_duration_seconds",
            "Time from a request to the response headers of the upstream, or to its failure.",
            ("upstream", "status"),
            registry=self.registry,
            buckets=_UPSTREAM_BUCKETS,
        )
        self._upstream_failures = cache(
            Counter(
                "chat_upstream_failures",
                "Calls that failed at the upstream.",
                ("upstream", "cause", "upstream_status"),
                registry=self.registry,
            ).labels
        )
        self.upstreams = UpstreamMetrics(self.registry)
        """The state of each upstream."""
        self._mended = cache(
            Counter(
                "chat_upstream_mended",
                "Documents that were no JSON until bad bytes and numbers in them were mended.",
                ("gen_ai_request_model",),
                registry=self.registry,
            ).labels
        )
        self._overruns = cache(
            Counter(
                "chat_upstream_overruns",
                "Streams that were cut, for the upstream disregarded the output limit.",
                ("gen_ai_request_model",),
                registry=self.registry,
            ).labels
        )
        self._charges = Distribution(
            "chat_charge_nano_credits",
            "Charges of calls.",
            ("gen_ai_request_model",),
            registry=self.registry,
            buckets=(),
        )
        self._holds = Gauge(
            "chat_holds_open", "Holds of calls that run or settle.", registry=self.registry
        )
        self._lost = Counter(
            "chat_usage_above_hold_nano_credits",
            "Reported usage above holds, which was not charged.",
            registry=self.registry,
        )
        self.store_up = Gauge(
            "chat_store_up", "Whether the store responds: 1 or 0.", registry=self.registry
        )
        self._settlements_waiting = Gauge(
            "chat_settlements_waiting",
            "Settlements that are neither in the store nor in the journal.",
            registry=self.registry,
        )
        self._journal = Gauge(
            "chat_journal_bytes",
            "Size of the settlements that wait in the journal for the store.",
            registry=self.registry,
        )
        self._settlements_lost = Counter(
            "chat_settlements_lost",
            "Settlements that neither the store nor the journal saved.",
            registry=self.registry,
        )
        self._settlements_rejected = Counter(
            "chat_settlements_rejected",
            "Settlements in the journal that the store cannot apply.",
            registry=self.registry,
        )
        self.webhooks = WebhookMetrics(self.registry)
        """The delivery of events."""
        self._upstream_close = Histogram(
            "chat_cancel_to_upstream_close_seconds",
            "Time from the cancellation of a call to the close of its upstream request.",
            registry=self.registry,
            buckets=_CLOSE_BUCKETS,
        )

    def watch(
        self,
        *,
        holds: Callable[[], float],
        settlements: Callable[[], float],
        journal: Callable[[], float],
    ) -> None:
        """Report values that are read from a thread with each scrape.

        Args:
            holds: Returns the number of open holds.
            settlements: Returns the number of settlements that nothing has saved yet.
            journal: Returns the size of the journal in bytes.
        """
        self._holds.set_function(holds)
        self._settlements_waiting.set_function(settlements)
        self._journal.set_function(journal)

    def upstream_responded(self, call: CallRecord, seconds: float) -> None:
        """Record the response headers of the last request, or its failure without a response.

        Args:
            call: The call, with the upstream and the status.
            seconds: The time since the request.
        """
        call.upstream_seconds = seconds
        status = status_label(call.upstream_status) or NO_RESPONSE
        self._upstream_duration.observe((call.upstream, status), seconds)

    def begin(self, call: CallRecord) -> None:
        """Count a call as in flight."""
        self._in_flight(call.method).inc()

    def upstream_closed(self, seconds: float) -> None:
        """Record how long a cancelled call took to close its upstream request."""
        self._upstream_close.observe(seconds)

    def lost(self, nano_credits: int) -> None:
        """Count usage above a hold, which is not charged."""
        self._lost.inc(nano_credits)

    def settlements_lost(self, count: int) -> None:
        """Count settlements that neither the store nor the journal saved."""
        self._settlements_lost.inc(count)

    def settlements_rejected(self, count: int) -> None:
        """Count settlements that were moved to a `.rejected` file."""
        self._settlements_rejected.inc(count)

    def end(self, call: CallRecord, now: float) -> None:
        """Record a call that ended, in the metrics and as a log line."""
        duration = now - call.started
        label = call.pattern or call.model  # callers choose the names that a pattern matches
        self._in_flight(call.method).dec()
        self._duration.observe((call.method, label, call.reason), duration)
        if call.upstream_attempts > 1:
            self._upstream_retries.inc(call.upstream_attempts - 1)
        members: dict[str, object] = {
            "request_id": call.request_id,
            "method": call.method,
            "model": call.model,
            "reason": call.reason or "OK",
            "duration_ms": _milliseconds(duration),
        }
        _add_request(call, members)
        if call.mended:
            self._mended(label).inc(call.mended)
            members["mended"] = call.mended
        if call.overran:
            self._overruns(label).inc()
            members["overran"] = True
        if call.first_chunk is not None and call.last_chunk is not None:
            to_first = call.first_chunk - call.started
            self._first_token.observe((label,), to_first)
            members["first_token_ms"] = _milliseconds(to_first)
            members["chunks"] = call.chunks
            if call.chunks > 1:
                mean = (call.last_chunk - call.first_chunk) / (call.chunks - 1)
                self._per_token.observe((label,), mean)
        if call.prompt_tokens or call.completion_tokens:
            self._tokens.observe((label, "input"), call.prompt_tokens)
            self._tokens.observe((label, "output"), call.completion_tokens)
            members["prompt_tokens"] = call.prompt_tokens
            members["completion_tokens"] = call.completion_tokens
            members["estimated"] = call.estimated
        self._end_costs(call, label, members)
        if call.trace_id:
            members["trace_id"] = call.trace_id
        if call.span_id:
            members["span_id"] = call.span_id
        level = logging.INFO
        if call.upstream:
            members["upstream"] = call.upstream
            members["upstream_status"] = call.upstream_status
        if call.upstream_report is not None:
            level = self._note_failure(call, call.upstream_report, members)
        elif call.reason in _ERRORS:
            level = logging.ERROR
        log.line(_log, level, "call", members)

    def _end_costs(self, call: CallRecord, label: str, members: dict[str, object]) -> None:
        """Record what a call cost: a charge, and the time of the upstream."""
        if call.charge is not None:
            self._charges.observe((label,), call.charge)
            members["charge"] = call.charge
        if call.upstream_seconds is not None:
            members["upstream_ms"] = _milliseconds(call.upstream_seconds)

    def _note_failure(
        self, call: CallRecord, report: UpstreamReport, members: dict[str, object]
    ) -> int:
        """Record a failure at the upstream, and return the level of its log line."""
        members["cause"] = report.cause
        if report.names:
            members["upstream_names"] = report.names
        if report.model:
            members["upstream_model"] = report.model
        if not call.reason.startswith("UPSTREAM_"):
            return logging.INFO  # the mistake of the caller
        status = status_label(call.upstream_status)
        self._upstream_failures(call.upstream, report.cause, status).inc()
        return logging.ERROR if report.cause in OPERATORS else logging.WARNING


def _add_request(call: CallRecord, members: dict[str, object]) -> None:
    """Add the fields of the request of a call."""
    if call.key_name:
        members["account"] = call.account
        members["key"] = call.key_name
    if call.violations:
        members["violations"] = call.violations
    if call.settings:
        members["settings"] = call.settings
    if call.upstream_attempts:
        members["upstream_attempts"] = call.upstream_attempts


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)

"""The metrics of a process, exported by OTLP over gRPC. Imported only if they are exported.

    registry -> every OTEL_METRIC_EXPORT_INTERVAL, and at the end -> families -> the receiver

The metrics are those that Prometheus reads, so that observing a value costs the same. Names and
labels that follow OpenTelemetry's semantic conventions are spelled as there; others stay as they
are. Counters and histograms are cumulative since the start of the process.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from threading import Event, Thread
from typing import Any, Final, TypeAlias

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataT,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from process.command_line import version
from process.otel_settings import OtelSettings
from process.otlp_export import (
    DEFAULT_ENDPOINT,
    LONGEST_FLUSH,
    SCHEMA,
    SCOPE,
    LostExports,
    resource,
    within,
)

_Labels: TypeAlias = tuple[tuple[str, str], ...]

NAMES: Final[Mapping[str, str]] = {
    "gen_ai_client_token_usage": "gen_ai.client.token.usage",
    "gen_ai_server_request_duration_seconds": "gen_ai.server.request.duration",
    "gen_ai_server_time_per_output_token_seconds": "gen_ai.server.time_per_output_token",
    "gen_ai_server_time_to_first_token_seconds": "gen_ai.server.time_to_first_token",
    "http_server_active_requests": "http.server.active_requests",
    "http_server_request_duration_seconds": "http.server.request.duration",
    "process_cpu_seconds": "process.cpu.time",
    "process_open_fds": "process.unix.file_descriptor.count",
    "process_resident_memory_bytes": "process.memory.usage",
    "process_virtual_memory_bytes": "process.memory.virtual",
}
"""The metrics of the conventions, by their names for Prometheus."""

LABELS: Final[Mapping[str, str]] = {
    "error_type": "error.type",
    "gen_ai_request_model": "gen_ai.request.model",
    "gen_ai_token_type": "gen_ai.token.type",
    "http_request_method": "http.request.method",
    "http_response_status_code": "http.response.status_code",
    "http_route": "http.route",
    "rpc_method": "rpc.method",
}
"""The attributes of the conventions, by the names of the labels."""

_UNITS: Final = {"_seconds": "s", "_bytes": "By", "_token_usage": "{token}"}
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE


class MetricsExport:
    """Exports the metrics of one deployable from a thread.

    Args:
        settings: The settings of OpenTelemetry.
        registry: The metrics.
        service: The name of the service, unless the environment has another.
        exporter: Sends the metrics; None for OTLP over gRPC.
        clock: Returns the time in nanoseconds since the Unix epoch.

    Raises:
        ValueError: A variable that OpenTelemetry's packages read has a wrong value.
        OSError: A file that they name cannot be read.
    """

    def __init__(
        self,
        settings: OtelSettings,
        registry: CollectorRegistry,
        *,
        service: str,
        exporter: MetricExporter | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._interval = settings.otel_metric_interval / 1000
        self._registry = registry
        endpoint = settings.otel_metrics_endpoint or settings.otel_endpoint or DEFAULT_ENDPOINT
        self._exporter = exporter or OTLPMetricExporter(endpoint=endpoint)
        self._resource = resource(service)
        self._clock = clock
        self._started = clock()
        self._lost = LostExports("metrics", time.monotonic)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="telemetry-metrics", daemon=True)

    def start(self) -> None:
        """Export from now on."""
        self._thread.start()

    async def aclose(self) -> None:
        """Export the last values, for up to `LONGEST_FLUSH` seconds."""

        def end() -> None:
            self._stop.set()
            self._thread.join()
            self._exporter.shutdown()

        await within(end, LONGEST_FLUSH)

    def export(self) -> None:
        """Export the current values. A failure is logged."""
        try:
            metrics = families(self._registry.collect(), self._started, self._clock())
            result = self._exporter.export(data(self._resource, metrics))
        except Exception:  # noqa: BLE001  (of any exporter; the thread must go on)
            result = MetricExportResult.FAILURE
        if result is not MetricExportResult.SUCCESS:
            self._lost.note(1)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.export()
        self.export()


def data(of: Resource, metrics: list[Metric]) -> MetricsData:
    """Return metrics as OpenTelemetry's exporters take them."""
    scope = ScopeMetrics(InstrumentationScope(SCOPE, version(), SCHEMA), metrics, SCHEMA)
    return MetricsData([ResourceMetrics(of, [scope], SCHEMA)])


def families(found: Iterable[Family], started: int, now: int) -> list[Metric]:
    """Return the metrics of a registry as those of OpenTelemetry.

    Args:
        found: The metrics.
        started: The start of the process, in nanoseconds since the Unix epoch.
        now: The time of the values, likewise.
    """
    return [
        Metric(
            name=NAMES.get(family.name, family.name),
            description=family.documentation,
            unit=next((unit for end, unit in _UNITS.items() if family.name.endswith(end)), "1"),
            data=_points(family, started, now),
        )
        for family in found
        if family.samples
    ]


def _points(family: Family, started: int, now: int) -> DataT:
    if family.type == "histogram":
        return Histogram(_histograms(family.samples, started, now), _CUMULATIVE)
    points = [
        NumberDataPoint(attributes(sample.labels), started, now, sample.value)
        for sample in family.samples
    ]
    if family.type == "counter":
        return Sum(points, _CUMULATIVE, is_monotonic=True)
    return Gauge(points)


def _histograms(samples: Iterable[Sample], started: int, now: int) -> list[HistogramDataPoint]:
    """Return one histogram for each set of labels."""
    bounds: dict[_Labels, list[float]] = {}
    counts: dict[_Labels, list[float]] = {}
    sums: dict[_Labels, float] = {}
    for sample in samples:
        labels = tuple(item for item in sample.labels.items() if item[0] != "le")
        if sample.name.endswith("_bucket"):
            bounds.setdefault(labels, []).append(float(sample.labels["le"]))
            counts.setdefault(labels, []).append(sample.value)
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    unknown: Any = None  # the smallest and the largest value, which are optional in OTLP
    return [
        HistogramDataPoint(
            attributes=attributes(dict(labels)),
            start_time_unix_nano=started,
            time_unix_nano=now,
            count=int(cumulative[-1]),
            sum=sums[labels],
            bucket_counts=_apart(cumulative),
            explicit_bounds=bounds[labels][:-1],  # without infinity
            min=unknown,
            max=unknown,
        )
        for labels, cumulative in counts.items()
    ]


def _apart(cumulative: list[float]) -> list[int]:
    """Return the count of each bucket alone."""
    before = [0.0, *cumulative]
    return [int(upper - lower) for lower, upper in zip(before, cumulative, strict=False)]


def attributes(labels: Mapping[str, str]) -> dict[str, str | int]:
    """Return labels as attributes. An empty one is left out: without a failure, it has no type."""
    return {
        LABELS.get(name, name): int(value) if name == "http_response_status_code" else value
        for name, value in labels.items()
        if value
    }

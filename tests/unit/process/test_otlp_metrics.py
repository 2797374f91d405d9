from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    Sum,
)
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Gauge as PrometheusGauge

from process.distribution import Distribution
from process.otel_settings import OtelSettings
from process.otlp_metrics import LABELS, NAMES, MetricsExport, families
from process.settings import read
from restbridge import telemetry as bridge_side
from restbridge.telemetry import Telemetry as BridgeTelemetry
from service import telemetry as service_side
from service.telemetry import Telemetry


class Exporter(MetricExporter):
    """Keeps what is exported, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.exports: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, *_: Any, **__: Any) -> MetricExportResult:
        if self.fails:
            raise OSError
        self.exports.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass


def exported(registry: CollectorRegistry) -> dict[str, Metric]:
    return {metric.name: metric for metric in families(registry.collect(), 1, 2)}


def test_a_histogram_has_its_buckets_apart_and_the_names_of_the_conventions() -> None:
    registry = CollectorRegistry()
    labels = ("rpc_method", "error_type", "http_response_status_code")
    name = "gen_ai_server_request_duration_seconds"
    durations = Distribution(name, "d", labels, registry=registry, buckets=(0.5, 1.0))
    for value in (0.1, 0.5, 0.7, 9.0):
        durations.observe(("Create", "", "200"), value)
    metric = exported(registry)["gen_ai.server.request.duration"]

    assert (metric.unit, metric.description) == ("s", "d")
    assert isinstance(metric.data, Histogram)
    [point] = metric.data.data_points
    assert point.attributes == {"rpc.method": "Create", "http.response.status_code": 200}
    assert (point.count, list(point.bucket_counts)) == (4, [2, 1, 1])
    assert (list(point.explicit_bounds), round(point.sum, 6)) == ([0.5, 1.0], 10.3)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (1, 2)


def test_a_histogram_without_buckets_has_its_sum() -> None:
    registry = CollectorRegistry()
    charges = Distribution("chat_charge_nano_credits", "c", (), registry=registry, buckets=())
    charges.observe((), 7)
    data = exported(registry)["chat_charge_nano_credits"].data

    assert isinstance(data, Histogram)
    [point] = data.data_points
    assert (point.count, point.sum, list(point.bucket_counts)) == (1, 7, [1])
    assert list(point.explicit_bounds) == []


def test_counters_only_grow_and_gauges_do_not() -> None:
    registry = CollectorRegistry()
    PrometheusCounter("chat_bridge_events", "e", registry=registry).inc(3)
    PrometheusGauge("chat_journal_bytes", "j", registry=registry).set(5)
    found = exported(registry)

    events, journal = found["chat_bridge_events"].data, found["chat_journal_bytes"]
    assert isinstance(events, Sum)
    assert (events.is_monotonic, [point.value for point in events.data_points]) == (True, [3])
    assert isinstance(journal.data, Gauge)
    assert (journal.unit, [point.value for point in journal.data.data_points]) == ("By", [5])


def test_every_name_of_the_tables_exists() -> None:
    registries = (Telemetry().registry, BridgeTelemetry().registry)
    names = {family.name for registry in registries for family in registry.collect()}
    sources = [Path(module.__file__ or "").read_text() for module in (service_side, bridge_side)]

    assert {name for name in NAMES if not name.startswith("process_")} <= names
    assert [label for label in LABELS if not any(f'"{label}"' in text for text in sources)] == []


async def test_the_last_values_are_exported_at_the_end() -> None:
    registry, exporter = CollectorRegistry(), Exporter()
    counter = PrometheusCounter("chat_bridge_events", "e", registry=registry)
    settings = read(OtelSettings, {})
    export = MetricsExport(settings, registry, service="ours", exporter=exporter)
    export.start()
    counter.inc(2)
    await export.aclose()

    [data] = exporter.exports
    [of] = data.resource_metrics
    assert of.resource.attributes["service.name"] == "ours"
    [metric] = of.scope_metrics[0].metrics
    assert isinstance(metric.data, Sum)
    assert [point.value for point in metric.data.data_points] == [2]


async def test_an_export_that_fails_is_logged(caplog: Any) -> None:
    exporter = Exporter(fails=True)
    settings = read(OtelSettings, {})
    export = MetricsExport(settings, CollectorRegistry(), service="ours", exporter=exporter)
    export.export()

    [record] = caplog.records
    assert record.__dict__["chat_fields"] == {"signal": "metrics", "lost": 1}

"""The settings of OpenTelemetry: its own standard variables, for both deployables.

    an endpoint, or OTEL_TRACES_EXPORTER=otlp     -> spans are exported
    an endpoint, or OTEL_METRICS_EXPORTER=otlp    -> metrics are exported
    OTEL_SDK_DISABLED=true, or neither            -> nothing is, and no package of it is imported

OpenTelemetry's packages read the others of its variables themselves, such as those of headers,
certificates, timeouts, queues and resource attributes. This table has those that must be checked at
start, because the packages would ignore a wrong value or fail later.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, Final

from process.settings import base_url, integer, one_of, parser, setting
from process.trace_context import PROPAGATORS, propagators

SAMPLERS: Final = ("always_on", "always_off", "traceidratio")
"""The samplers of OpenTelemetry's specification, each also with `parentbased_` before its name."""

EXTRA: Final = "otel"
"""The extra that has OpenTelemetry's packages."""

_NEEDED: Final = "opentelemetry.exporter.otlp.proto.grpc"


@parser("a number from 0 to 1", "0.1")
def ratio(text: str) -> str:
    """Parse the share of traces that a sampler keeps, or "" if the variable is absent."""
    if text and not 0 <= float(text) <= 1:
        raise ValueError
    return text


@parser("an http:// or https:// address without credentials and query", "http://127.0.0.1:4317")
def endpoint(text: str) -> str:
    """Parse the address of an OTLP receiver, or "" if the variable is absent."""
    return base_url(text)


@parser("one of otlp, none")
def exporter(text: str) -> str:
    """Parse the name of an exporter, or "" if the variable is absent."""
    if text not in {"", "otlp", "none"}:
        raise ValueError
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class OtelSettings:
    """The settings of OpenTelemetry, which are settings of both deployables."""

    otel_disabled: str = setting(
        "OTEL_SDK_DISABLED",
        "false",
        one_of("true", "false"),
        "Whether to export nothing, in spite of the other variables.",
    )
    otel_traces: str = setting(
        "OTEL_TRACES_EXPORTER",
        "",
        exporter,
        "`otlp` exports spans, `none` does not; if absent, spans are exported if an endpoint is "
        "set.",
    )
    otel_metrics: str = setting(
        "OTEL_METRICS_EXPORTER",
        "",
        exporter,
        "`otlp` exports metrics, `none` does not; if absent, metrics are exported if an endpoint "
        "is set.",
    )
    otel_endpoint: str = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        endpoint,
        "The OTLP receiver, such as `http://127.0.0.1:4317`; `https://` uses TLS.",
    )
    otel_traces_endpoint: str = setting(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "",
        endpoint,
        "The OTLP receiver of spans, if it is another one.",
    )
    otel_metrics_endpoint: str = setting(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "",
        endpoint,
        "The OTLP receiver of metrics, if it is another one.",
    )
    otel_protocol: str = setting(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "grpc",
        one_of("grpc"),
        "The protocol of OTLP. Only gRPC is supported.",
    )
    otel_sampler: str = setting(
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        one_of(*SAMPLERS, *(f"parentbased_{name}" for name in SAMPLERS)),
        "Which traces are exported; with `parentbased_…`, the caller's decision has precedence.",
    )
    otel_sampler_ratio: str = setting(
        "OTEL_TRACES_SAMPLER_ARG",
        "",
        ratio,
        "The share of traces that `traceidratio` exports, from 0 to 1.",
    )
    otel_metric_interval: int = setting(
        "OTEL_METRIC_EXPORT_INTERVAL",
        "60000",
        integer(100, 86_400_000),
        "How often metrics are exported, in milliseconds.",
    )
    propagators: frozenset[str] = setting(
        "OTEL_PROPAGATORS",
        ",".join(PROPAGATORS),
        propagators,
        "The trace headers that are carried on, also if nothing is exported; `none` for none.",
    )

    @property
    def exports_traces(self) -> bool:
        """Whether spans are exported."""
        return self._exports(self.otel_traces, self.otel_traces_endpoint)

    @property
    def exports_metrics(self) -> bool:
        """Whether metrics are exported by OTLP."""
        return self._exports(self.otel_metrics, self.otel_metrics_endpoint)

    def _exports(self, named: str, endpoint: str) -> bool:
        if self.otel_disabled == "true":
            return False
        return named == "otlp" or (named == "" and bool(endpoint or self.otel_endpoint))


def missing_extra(
    values: Mapping[str, Any], is_installed: Callable[[], bool] | None = None
) -> list[str]:
    """Return a line if something is to be exported and OpenTelemetry's packages are missing.

    Args:
        values: The valid settings by field. If one of these settings is wrong, its line is enough.
        is_installed: Returns whether the packages are installed; None to look for them.
    """
    names = [field.name for field in fields(OtelSettings)]
    if not values.keys() >= set(names):
        return []
    settings = OtelSettings(**{name: values[name] for name in names})
    if not (settings.exports_traces or settings.exports_metrics):
        return []
    if (is_installed or _is_installed)():
        return []
    asks = next(
        name
        for name, value in (
            ("OTEL_TRACES_EXPORTER", settings.otel_traces == "otlp"),
            ("OTEL_METRICS_EXPORTER", settings.otel_metrics == "otlp"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", settings.otel_traces_endpoint),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", settings.otel_metrics_endpoint),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", settings.otel_endpoint),
        )
        if value
    )
    return [
        f"{asks} needs the packages of OpenTelemetry, which are missing. "
        f"Run: pip install 'chatcompletion[{EXTRA}]', or write: OTEL_SDK_DISABLED=true"
    ]


def cannot_export(error: Exception) -> str:
    """Return the line for an exporter that cannot be created.

    Args:
        error: The error of OpenTelemetry's packages, for a variable that they read.
    """
    return f"OTEL_…: cannot export: {type(error).__name__}: {error}"


def _is_installed() -> bool:
    try:
        return find_spec(_NEEDED) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False

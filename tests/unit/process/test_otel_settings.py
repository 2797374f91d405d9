from typing import Any

import pytest

from process.otel_settings import OtelSettings, cannot_export, missing_extra
from process.settings import SettingsError, parse, read

URL = "http://127.0.0.1:4317"


def settings(**environment: str) -> OtelSettings:
    return read(OtelSettings, environment)


@pytest.mark.parametrize(
    ("environment", "traces", "metrics"),
    [
        ({}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, True, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL}, False, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, False, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"}, False, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "true"}, False, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False, False),
    ],
)
def test_the_standard_variables_switch_the_exporters(
    environment: dict[str, str], traces: bool, metrics: bool
) -> None:
    found = settings(**environment)

    assert (found.exports_traces, found.exports_metrics) == (traces, metrics)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.1"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "99"),
    ],
)
def test_a_wrong_value_has_its_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} must be .*; found "):
        settings(**{name: value})


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
    ],
)
def test_without_the_extra_the_setting_is_wrong(environment: dict[str, str], named: str) -> None:
    values, _ = parse(OtelSettings, environment)

    [line] = missing_extra(values, lambda: False)
    assert line == (
        f"{named} needs the packages of OpenTelemetry, which are missing. "
        "Run: pip install 'chatcompletion[otel]', or write: OTEL_SDK_DISABLED=true"
    )
    assert missing_extra(values, lambda: True) == missing_extra(values) == []


@pytest.mark.parametrize("environment", [{}, {"OTEL_TRACES_EXPORTER": "console"}])
def test_if_nothing_is_asked_for_nothing_is_missing(environment: dict[str, str]) -> None:
    values: dict[str, Any] = parse(OtelSettings, environment)[0]

    assert missing_extra(values, lambda: False) == []


def test_an_exporter_that_cannot_be_created_says_why() -> None:
    text = cannot_export(FileNotFoundError("ca.pem"))

    assert text == "OTEL_…: cannot export: FileNotFoundError: ca.pem"

from contextlib import AsyncExitStack

import pytest
from prometheus_client import CollectorRegistry

from process.exporting import start
from process.otel_settings import OtelSettings
from process.settings import read
from tests.support.otlp import receiver


@pytest.mark.parametrize(
    ("variable", "traces", "metrics"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", True, True),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", True, False),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", False, True),
    ],
)
async def test_what_the_settings_ask_for_is_exported(
    variable: str, traces: bool, metrics: bool
) -> None:
    async with receiver() as otlp:
        settings = read(OtelSettings, {variable: f"http://{otlp.address}"})
        async with AsyncExitStack() as stack:
            tracing = start(settings, CollectorRegistry(), service="ours", resources=stack)
            if tracing is not None:
                tracing.server("name", (), {}).end({})

    assert (bool(otlp.traces), bool(otlp.metrics)) == (traces, metrics)

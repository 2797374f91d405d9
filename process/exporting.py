"""The export of spans and metrics by OTLP. Imported only if something is exported.

start(settings, registry, …) -> the exporters that the settings ask for, and the end of both
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from process.otel_settings import OtelSettings
from process.otlp_metrics import MetricsExport
from process.tracing import Tracing


def start(
    settings: OtelSettings, registry: CollectorRegistry, *, service: str, resources: AsyncExitStack
) -> Tracing | None:
    """Begin to export what the settings ask for. Return the source of spans, if they are exported.

    Args:
        settings: The settings.
        registry: The metrics.
        service: The name of the service, unless the environment has another.
        resources: Ends the exporters, after they have exported what is left.

    Raises:
        ValueError: A variable that OpenTelemetry's packages read has a wrong value.
        OSError: A file that they name cannot be read.
    """
    ends: list[Callable[[], Awaitable[None]]] = []
    tracing = None
    if settings.exports_traces:
        tracing = Tracing(settings, service=service)
        ends.append(tracing.aclose)
    if settings.exports_metrics:
        metrics = MetricsExport(settings, registry, service=service)
        metrics.start()
        ends.append(metrics.aclose)

    async def end() -> None:
        await asyncio.gather(*(each() for each in ends))

    resources.push_async_callback(end)
    return tracing

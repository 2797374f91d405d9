"""A real OTLP receiver over gRPC, on a free port.

async with receiver() as otlp:
    ...                     http://{otlp.address}, as OTEL_EXPORTER_OTLP_ENDPOINT
    otlp.spans()            after the exporter has flushed
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support import canaries


@dataclass(kw_only=True, slots=True)
class Received:
    """What a receiver has received."""

    address: str = ""
    """The address of the receiver, as host:port."""
    traces: list[Any] = field(default_factory=list)
    """The requests with spans."""
    metrics: list[Any] = field(default_factory=list)
    """The requests with metrics."""
    metadata: list[dict[str, Any]] = field(default_factory=list)
    """The metadata of each request."""

    def take(self, requests: list[Any], request: Any, context: Any) -> None:
        """Keep a request, and search it for secrets."""
        requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        canaries.search_message("an export", request.SerializeToString())
        canaries.search("the metadata of an export", str(self.metadata[-1]))

    def spans(self) -> "list[ReceivedSpan]":
        """Return the spans in the order of their beginning."""
        found = [
            ReceivedSpan(span, values(resource.resource.attributes))
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda each: each.span.start_time_unix_nano)


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span, and the attributes of its process."""

    span: Span
    resource: dict[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes."""
        return values(self.span.attributes)


def values(pairs: Any) -> dict[str, Any]:
    """Return attributes as a dict. Lists are tuples."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(each) for each in value.array_value.values)
    return getattr(value, kind)


@asynccontextmanager
async def receiver() -> AsyncIterator[Received]:
    """Run a receiver of spans and metrics."""
    received = Received()

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            received.take(received.traces, request, context)
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            received.take(received.metrics, request, context)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    received.address = f"127.0.0.1:{port}"
    try:
        yield received
    finally:
        await server.stop(None)

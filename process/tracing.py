"""Spans by OpenTelemetry, exported by OTLP over gRPC. Imported only if spans are exported.

    Tracing.server(name, carried) -> Span        a request that arrived; its parent is the caller's
    span.client(name)             -> Span        a request that it causes
    span.carried                  -> headers     to send with what the span causes
    span.end(attributes)          -> a bounded queue -> a thread -> the receiver

A span that the sampler leaves out has ids, which are carried on and logged, and nothing else. The
queue drops spans if it is full. A receiver that fails costs a thread its time, and a log line a
minute; calls do not notice it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

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
from process.trace_context import TRACE, Carried

AttributeValue: TypeAlias = str | int | float | bool | Sequence[str]
Attributes: TypeAlias = Mapping[str, AttributeValue]


class Span:
    """One span.

    Args:
        tracer: Creates the spans below it.
        span: The span of OpenTelemetry.
        received: The headers of the request that caused it.
        propagates: Whether its ids are carried on.
    """

    __slots__ = ("_propagates", "_received", "_span", "_tracer", "carried", "span_id", "trace_id")

    def __init__(
        self, tracer: Tracer, span: OtelSpan, received: Carried, *, propagates: bool
    ) -> None:
        self._tracer = tracer
        self._span = span
        self._received = received
        self._propagates = propagates
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        """The id of its trace, as 32 hexadecimal digits."""
        self.span_id = f"{context.span_id:016x}"
        """Its id, as 16 hexadecimal digits."""
        parent = f"00-{self.trace_id}-{self.span_id}-{context.trace_flags:02x}"
        own = (("traceparent", parent),) if propagates else ()
        self.carried: Carried = (
            *own,
            *(header for header in received if header[0] != "traceparent"),
        )
        """The headers to send with the requests that it causes."""

    @property
    def is_recorded(self) -> bool:
        """Whether its attributes are exported."""
        return self._span.is_recording()

    def client(self, name: str, attributes: Attributes) -> "Span":
        """Begin a span below this one, for a request to another process."""
        below = self._tracer.start_span(
            name,
            set_span_in_context(self._span, Context()),
            SpanKind.CLIENT,
            attributes if self.is_recorded else None,
        )
        return Span(self._tracer, below, self._received, propagates=self._propagates)

    def end(
        self,
        attributes: Attributes,
        *,
        failed: bool = False,
        name: str = "",
        at: int | None = None,
    ) -> None:
        """End the span.

        Args:
            attributes: Attributes that were not known at its beginning.
            failed: Whether the request failed for a reason on the side of this span.
            name: Its name, if that was not known at its beginning.
            at: The time at which it ended, in nanoseconds since the Unix epoch; None for now.
        """
        if self._span.is_recording():
            self._span.set_attributes(attributes)
            if name:
                self._span.update_name(name)
            if failed:
                self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(at)


class Tracing:
    """The spans of one deployable.

    Args:
        settings: The settings of OpenTelemetry.
        service: The name of the service, unless the environment has another.
        exporter: Sends the spans; None for OTLP over gRPC.

    Raises:
        ValueError: A variable that OpenTelemetry's packages read has a wrong value.
        OSError: A file that they name cannot be read.
    """

    def __init__(
        self, settings: OtelSettings, *, service: str, exporter: SpanExporter | None = None
    ) -> None:
        self._propagates = TRACE in settings.propagators
        self._provider = TracerProvider(
            sampler=_sampler(settings), resource=resource(service), shutdown_on_exit=False
        )
        endpoint = settings.otel_traces_endpoint or settings.otel_endpoint or DEFAULT_ENDPOINT
        sends = exporter or OTLPSpanExporter(endpoint=endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(_Watched(sends, time.monotonic)))
        self._tracer = self._provider.get_tracer(SCOPE, version(), SCHEMA)

    def server(self, name: str, received: Carried, attributes: Attributes) -> Span:
        """Begin the span of a request that arrived.

        Args:
            name: Its name, of a bounded set.
            received: The headers of the request.
            attributes: Attributes, on which samplers can decide.
        """
        parent = set_span_in_context(NonRecordingSpan(_parent(received)), Context())
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        return Span(self._tracer, span, received, propagates=self._propagates)

    async def aclose(self) -> None:
        """Export what is left, for up to `LONGEST_FLUSH` seconds."""
        await within(self._provider.shutdown, LONGEST_FLUSH)


class _Watched(SpanExporter):
    """An exporter whose failures are logged, and raise nothing."""

    def __init__(self, exporter: SpanExporter, clock: Callable[[], float]) -> None:
        self._exporter = exporter
        self._failures = LostExports("spans", clock)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001  (of any exporter; the thread must go on)
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._failures.note(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _parent(received: Carried) -> SpanContext:
    """Return the span of the caller, which is invalid if there is none."""
    headers = dict(received)
    parent = headers.get("traceparent")
    if parent is None:
        return SpanContext(0, 0, is_remote=True)
    state = TraceState.from_header([headers["tracestate"]]) if "tracestate" in headers else None
    return SpanContext(
        int(parent[3:35], 16),
        int(parent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(parent[53:55], 16)),
        trace_state=state,
    )


def _sampler(settings: OtelSettings) -> sampling.Sampler:
    kind = settings.otel_sampler.removeprefix("parentbased_")
    root: sampling.Sampler
    if kind == "traceidratio":
        root = sampling.TraceIdRatioBased(float(settings.otel_sampler_ratio or 1))
    else:
        root = sampling.ALWAYS_ON if kind == "always_on" else sampling.ALWAYS_OFF
    return root if kind == settings.otel_sampler else sampling.ParentBased(root)

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from process.otel_settings import OtelSettings
from process.otlp_export import resource
from process.settings import read
from process.trace_context import Carried
from process.tracing import Tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER: Carried = (
    ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),
    ("tracestate", "a=1"),
    ("baggage", "b=2"),
)


class Exports:
    """Spans that a `Tracing` exports to memory."""

    def __init__(self, **environment: str) -> None:
        self.exporter = InMemorySpanExporter()
        settings = read(OtelSettings, environment)
        self.tracing = Tracing(settings, service="chatcompletion-test", exporter=self.exporter)

    async def spans(self) -> dict[str, ReadableSpan]:
        await self.tracing.aclose()
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    resource.cache_clear()
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


async def test_a_span_goes_on_in_the_trace_of_the_caller() -> None:
    exports = Exports()
    span = exports.tracing.server("server", CALLER, {"a": 1})
    below = span.client("client", {"b": 2})
    below.end({})
    span.end({"c": 3}, failed=True, name="renamed")

    assert span.trace_id == below.trace_id == TRACE
    assert span.carried[0] == ("traceparent", f"00-{TRACE}-{span.span_id}-01")
    assert below.carried == (("traceparent", f"00-{TRACE}-{below.span_id}-01"), *CALLER[1:])
    spans = await exports.spans()
    assert spans["renamed"].attributes == {"a": 1, "c": 3}
    assert spans["renamed"].resource.attributes["service.name"] == "chatcompletion-test"
    parent = spans["client"].parent
    assert parent is not None
    assert f"{parent.span_id:016x}" == span.span_id


@pytest.mark.parametrize(
    ("sampler", "of_a_caller", "alone"),
    [
        ("parentbased_always_on", True, True),
        ("parentbased_always_off", True, False),
        ("always_off", False, False),
        ("parentbased_traceidratio", True, False),
    ],
)
async def test_the_sampler_is_that_of_the_variables(
    sampler: str, of_a_caller: bool, alone: bool
) -> None:
    exports = Exports(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG="0")
    for name, received in (("caller", CALLER), ("alone", ())):
        span = exports.tracing.server(name, received, {})
        span.client(f"below {name}", {}).end({})
        span.end({})

    names = {"caller", "below caller"} if of_a_caller else set()
    assert set(await exports.spans()) == names | ({"alone", "below alone"} if alone else set())


async def test_without_its_propagator_no_id_is_sent() -> None:
    exports = Exports(OTEL_PROPAGATORS="baggage")
    span = exports.tracing.server("server", (("baggage", "b=2"),), {})

    assert span.carried == (("baggage", "b=2"),)


async def test_the_name_of_the_environment_has_precedence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-1,team=a")
    exports = Exports()
    exports.tracing.server("server", (), {}).end({})

    resource = (await exports.spans())["server"].resource.attributes
    assert resource["service.name"] == "ours"
    assert (resource["service.instance.id"], resource["team"]) == ("pod-1", "a")


async def test_an_exporter_that_raises_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    exports = Exports()

    def fail(_: Any) -> SpanExportResult:
        raise OSError

    exports.exporter.export = fail  # type: ignore[assignment, method-assign]
    exports.tracing.server("server", (), {}).end({})
    await exports.tracing.aclose()

    [record] = caplog.records
    assert record.message == "telemetry is not exported"
    assert record.__dict__["chat_fields"] == {"signal": "spans", "lost": 1}

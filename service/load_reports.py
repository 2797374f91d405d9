"""Reports the load of this process by ORCA, so that proxies and gRPC clients can weigh replicas.

    the end of a call with a key    a report in its trailing metadata, with the cost of the call
    OpenRcaService                  a report every few seconds, without a key

    application_utilization    calls in flight / CHAT_MAX_CONCURRENT_CALLS
    cpu_utilization            CPU seconds per second; a process uses up to about one core
    rps_fractional             calls per second
    eps                        calls per second that failed on the side of the service
    named_metrics              calls_in_flight, output_tokens_per_second
    request_cost               charge_nano_credits, input_tokens, output_tokens, of one call

All but the cost are averages over the last 5 to 10 seconds.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import grpc
from grpc.aio import ServicerContext

from chatcompletion.reasons import RULES
from service.orca_messages import METHOD, SERVICE, Report, Request
from service.telemetry import CallRecord

HEADER: Final = "endpoint-load-metrics-bin"
"""The key of a report in trailing metadata."""

LEAST_INTERVAL: Final = 1.0
"""Minimum seconds between two reports of a stream."""
MOST_INTERVAL: Final = 3600.0
"""Maximum seconds between two reports of a stream."""
USUAL_INTERVAL: Final = 10.0
"""Seconds between two reports of a stream whose caller requests no interval."""

WINDOW: Final = 5.0
"""Seconds after which a new window begins. An average covers this window and the one before."""

# Quoted, because it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"
_CALLS, _FAILURES, _TOKENS, _BUSY, _CPU = range(5)


class Load:
    """Measures the load of this process.

    Args:
        most: The maximum number of concurrent calls.
        clock: A monotonic clock in seconds.
        cpu: Returns the CPU seconds of this process.
    """

    def __init__(self, most: int, *, clock: Callable[[], float], cpu: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._cpu = cpu
        self._in_flight = 0
        self._now = clock()
        self._totals = [0.0, 0.0, 0.0, 0.0, cpu()]
        """Since the start: calls, failures, output tokens, seconds of calls in flight, and CPU."""
        self._before = self._window = (self._now, tuple(self._totals))
        """The time and the totals at the begin of the last window and of this one."""

    def begin(self) -> None:
        """Count a call that begins."""
        self._advance()
        self._in_flight += 1

    def end(self, record: CallRecord) -> None:
        """Count a call that ended."""
        self._advance()
        self._in_flight -= 1
        self._totals[_CALLS] += 1
        self._totals[_TOKENS] += record.completion_tokens
        rule = RULES.get(record.reason)
        if rule is not None and rule.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._totals[_FAILURES] += 1

    def report(self, record: CallRecord | None = None) -> Any:
        """Return a report.

        Args:
            record: A call whose cost is in the report; None for none.
        """
        self._advance()
        self._totals[_CPU] = self._cpu()
        since, totals = self._before
        elapsed = max(self._now - since, 1e-3)
        rates = [(now - then) / elapsed for now, then in zip(self._totals, totals, strict=True)]
        report = Report(
            application_utilization=rates[_BUSY] / self._most,
            cpu_utilization=rates[_CPU],
            rps_fractional=rates[_CALLS],
            eps=rates[_FAILURES],
            named_metrics={
                "calls_in_flight": rates[_BUSY],
                "output_tokens_per_second": rates[_TOKENS],
            },
        )
        if record is not None:
            report.request_cost["charge_nano_credits"] = record.charge or 0
            report.request_cost["input_tokens"] = record.prompt_tokens
            report.request_cost["output_tokens"] = record.completion_tokens
        return report

    def _advance(self) -> None:
        """Add the time since the last event, and begin a new window if this one is over."""
        now = self._clock()
        self._totals[_BUSY] += self._in_flight * (now - self._now)
        self._now = now
        if now - self._window[0] >= WINDOW:
            self._totals[_CPU] = self._cpu()
            self._before, self._window = self._window, (now, tuple(self._totals))


def serve(server: Any, load: Load) -> None:
    """Serve streams of reports on a listener.

    Args:
        server: A server of grpc.aio.
        load: The load.
    """

    async def stream(request: Any, context: _Context) -> None:
        asked = request.report_interval.seconds + request.report_interval.nanos / 1e9
        interval = min(max(asked or USUAL_INTERVAL, LEAST_INTERVAL), MOST_INTERVAL)
        while True:
            await context.write(load.report())
            await asyncio.sleep(interval)

    handlers = {
        METHOD: grpc.unary_stream_rpc_method_handler(
            stream,  # the interceptor of probes awaits it
            request_deserializer=Request.FromString,
            response_serializer=Report.SerializeToString,
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)

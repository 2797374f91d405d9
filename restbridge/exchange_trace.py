"""The spans of an exchange, with the attributes of OpenTelemetry's semantic conventions.

    request -> POST /v1/chat/completions                                  server   http.*
                 call to the service -> chatcompletion.v1.…/Create…       client   rpc.*

The path of a request is not an attribute, because callers choose it; its route is.
"""

from typing import TYPE_CHECKING, Final

from chatcompletion.reasons import RULES
from process.trace_context import Carried

if TYPE_CHECKING:  # imported only if spans are exported
    from process.tracing import Span, Tracing

TRACED: Final = "/v1/"
"""The prefix of the paths whose exchanges have spans. Probes and pages have none."""

_FAULT: Final = 500
"""The first HTTP status that is an error of a server. The others are those of its client."""


class ExchangeTrace:
    """The spans of one exchange.

    Args:
        span: The span of the exchange.
    """

    def __init__(self, span: "Span") -> None:
        self._span = span
        self._call: Span | None = None
        self.trace_id = span.trace_id
        """The id of the trace."""
        self.span_id = span.span_id
        """The id of the span of the exchange."""

    def call(self, rpc: str) -> Carried:
        """Begin the span of the call to the service, and return the headers to send with it.

        Args:
            rpc: The full name of the method.
        """
        self._call = self._span.client(rpc, {"rpc.system.name": "grpc", "rpc.method": rpc})
        return self._call.carried

    def called(self, reason: str = "") -> None:
        """End the span of the call to the service.

        Args:
            reason: The reason of its failure; "" for success.
        """
        call, self._call = self._call, None
        if call is not None:
            code = RULES[reason].grpc_code.name if reason in RULES else "OK"
            failed = {"error.type": reason} if reason else {}
            call.end({"rpc.response.status_code": code, **failed}, failed=bool(reason))

    def end(self, *, method: str, route: str, status: int, reason: str, request_id: str) -> None:
        """End the spans.

        Args:
            method: The method of the request, of a bounded set.
            route: The template of its path.
            status: The HTTP status of the response.
            reason: The reason of the failure; "" for success.
            request_id: The id of the request.
        """
        self.called(reason)
        failed = {"error.type": reason} if reason else {}
        self._span.end(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "chat.request_id": request_id,
                **failed,
            },
            failed=status >= _FAULT,
            name=f"{method} {route}",
        )


def begin(tracing: "Tracing", received: Carried) -> ExchangeTrace:
    """Begin the span of an exchange.

    Args:
        tracing: Creates spans.
        received: The trace headers of the request.
    """
    return ExchangeTrace(tracing.server("HTTP", received, {"url.scheme": "http"}))

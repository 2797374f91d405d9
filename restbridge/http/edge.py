"""The outermost layer of every request.

    request -> id -> application -> x-request-id on the response -> metrics, one log line

The id is the caller's if it is valid. The log line has the route's template, never the URL.
"""

import asyncio
from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING, Final, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from process import request_id, trace_context
from restbridge import exchange_trace
from restbridge.clock import Clock
from restbridge.error_responses import ErrorResponse
from restbridge.headers import single
from restbridge.http.exchange import CONNECTION, Exchange, attach
from restbridge.telemetry import Telemetry

if TYPE_CHECKING:  # imported only if spans are exported
    from process.tracing import Tracing

_ID: Final = request_id.HEADER.encode("ascii")


class Edge:
    """The outermost application.

    Args:
        app: The wrapped application.
        telemetry: Records every exchange.
        clock: Measures the exchanges.
        propagators: The trace headers that are carried on, as in OTEL_PROPAGATORS.
        tracing: Creates spans; None if none are exported.
    """

    def __init__(
        self,
        app: ASGIApp,
        telemetry: Telemetry,
        clock: Clock,
        *,
        propagators: Collection[str] = trace_context.PROPAGATORS,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._propagators = propagators
        self._tracing = tracing
        self._app = app
        self._telemetry = telemetry
        self._clock = clock
        self._running: set[Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one exchange."""
        exchange = self._begin(scope)
        attach(scope, exchange)
        named = (_ID, exchange.request_id.encode("ascii"))

        async def start(message: Message) -> None:
            message["headers"] = [*message["headers"], named]
            await send(message)
            # After the await, because uvicorn waits for a slow reader before it writes.
            exchange.status = message["status"]

        def send_named(message: Message) -> Awaitable[None]:
            return start(message) if message["type"] == "http.response.start" else send(message)

        self._running.add(exchange)
        self._telemetry.begin()
        try:
            await self._app(scope, receive, cast("Send", send_named))
        finally:
            self._running.discard(exchange)
            self._telemetry.end(
                exchange,
                method=scope["method"],
                route=exchange.route,
                now=self._clock.time(),
            )

    @property
    def running(self) -> int:
        """The number of exchanges in progress."""
        return len(self._running)

    def end_all(self, failure: ErrorResponse) -> None:
        """End every exchange in progress with this failure."""
        for exchange in tuple(self._running):
            exchange.end(failure)

    def _begin(self, scope: Scope) -> Exchange:
        headers = scope["headers"]
        asked = single(headers, _ID)
        length = single(headers, b"content-length")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an exchange runs in a task")
        exchange = Exchange(
            request_id=request_id.accept(asked.decode("latin-1") if asked is not None else None),
            task=task,
            began=self._clock.time(),
            connection=scope["state"][CONNECTION],
            carried=trace_context.carried(trace_context.joined(headers), self._propagators),
            body_is_pending=(length is not None and length.strip(b"0") != b"")
            or any(name == b"transfer-encoding" for name, _ in headers),
        )
        if self._tracing is not None and scope["path"].startswith(exchange_trace.TRACED):
            exchange.trace = exchange_trace.begin(self._tracing, exchange.carried)
        return exchange

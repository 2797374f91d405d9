"""One exchange: a request and its response.

    running -> completed                        the application returned
            -> failed                           the application raised; `failure` has the reason
            -> end(failure) -> cancelled -> failed    the client left, or the bridge shuts down

`end` cancels the task of the exchange, which can wait for the body, the service or a slow reader.
The exchange stores the failure, so that the handler of the CancelledError finds it, as in
`asyncio.timeout`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self, cast

from starlette.types import Receive, Scope

from process.trace_context import Carried, trace_of
from restbridge.error_responses import LEFT, ErrorResponse, RefusedError
from restbridge.exchange_trace import ExchangeTrace

_KEY: Final = "restbridge.http.exchange"

CONNECTION: Final = "restbridge.connection"
"""The key under which `protocol` puts `Exchange.connection` into the state of a scope."""


UNKNOWN_ROUTE: Final = "unknown"
"""The route of a request without a resource."""


class ClientConnection(Protocol):
    """The connection of an exchange, with operations that ASGI lacks."""

    @property
    def has_body(self) -> bool:
        """Whether all of the request's body has arrived."""

    def cut(self) -> None:
        """Close it after sending all written data, without the end of the response."""

    async def drained(self) -> None:
        """Wait until the client has read enough for the next write, or has disconnected."""

    def forget_request(self) -> None:
        """Free the head of the request. Call it when a long response has begun."""

    def watch(self, left: Callable[[], None] | None) -> None:
        """Call `left` once when the client disconnects, or now if it has. None cancels this."""


@dataclass(kw_only=True, slots=True, eq=False)
class Exchange:
    """The state of a request and its response."""

    request_id: str
    task: asyncio.Task[object] = field(repr=False)
    began: float
    """The time at which it began, by the bridge's clock."""
    connection: ClientConnection = field(repr=False)
    carried: Carried = ()
    """W3C Trace Context and Baggage of the request, which are sent to the service."""
    trace: ExchangeTrace | None = field(default=None, repr=False)
    """Its spans; None if it has none."""
    route: str = UNKNOWN_ROUTE
    """The template of its path."""
    status: int = 0
    """The HTTP status that was sent; 0 before."""
    body_is_pending: bool = False
    """Whether the request has a body that was not read."""
    streams_events: bool = False
    """Whether a stream of events has begun."""
    first_event: float | None = None
    """The time of the first event of a stream, by the same clock."""
    events: int = 0
    """The number of events that were sent."""
    failure: ErrorResponse | None = None
    _running: bool = True

    def end(self, failure: ErrorResponse) -> None:
        """End the exchange early with this failure. Later calls have no effect."""
        if self._running and self.failure is None:
            self.failure = failure
            self.task.cancel()

    @property
    def trace_id(self) -> str:
        """The id of its trace; "" for none."""
        return self.trace.trace_id if self.trace is not None else trace_of(self.carried)

    @property
    def span_id(self) -> str:
        """The id of its span; "" for none."""
        return self.trace.span_id if self.trace is not None else ""

    def calling(self, rpc: str) -> Carried:
        """Return the trace headers to send with a call to the service, which begins now.

        Args:
            rpc: The full name of the method.
        """
        return self.carried if self.trace is None else self.trace.call(rpc)

    def called(self) -> None:
        """Note that the call to the service succeeded."""
        if self.trace is not None:
            self.trace.called()

    def settle(self) -> None:
        """Mark the application as finished, so that `end` has no effect any more."""
        self._running = False

    def was_ended(self) -> bool:
        """Return whether `end` is the only cause of a CancelledError. Call it in its handler."""
        return self.failure is not None and self.task.uncancel() == 0


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange to which a scope belongs."""
    return cast("Exchange", scope[_KEY])


def attach(scope: Scope, exchange: Exchange) -> None:
    """Attach an exchange to a scope."""
    scope[_KEY] = exchange


class Departure:
    """Ends an exchange as soon as its client disconnects. Enter it after the body is read.

    with Departure(exchange, receive):
        ...                                  # cancelled when the client disconnects
    """

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._reading: asyncio.Task[None] | None = None

    async def _read_away(self) -> None:
        """Discard the rest of the body: a disconnection is only received after it."""
        while (message := await self._receive())["type"] != "http.disconnect":
            if not message.get("more_body", False):
                self._exchange.body_is_pending = False
                return

    def __enter__(self) -> Self:
        if self._exchange.body_is_pending:
            self._reading = asyncio.create_task(self._read_away())
        self._exchange.connection.watch(partial(self._exchange.end, LEFT))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exchange.connection.watch(None)
        if self._reading is not None:
            self._reading.cancel()


def left() -> RefusedError:
    """Return the exception for a client that disconnected before its request was complete."""
    return RefusedError(LEFT)

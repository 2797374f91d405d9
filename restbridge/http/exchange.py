"""One exchange: a request and its answer.

    running ──► answered                       the application returned
       ├──────► failed                         it raised; `failure` says why
       └─ end(failure) ─► cancelled ─► failed  the caller left, or the bridge shuts down

What ends an exchange early cancels its task, whatever it waits for: the body, the service, a reader
that does not read. The reason travels beside the cancellation, as in `asyncio.timeout`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self, cast

from starlette.types import Receive, Scope

from restbridge.error_responses import LEFT, ErrorResponse, RefusedError

_KEY: Final = "restbridge.http.exchange"

CONNECTION: Final = "restbridge.connection"
"""The key, in the state of a scope, under which `protocol` gives `Exchange.connection`."""


UNKNOWN_ROUTE: Final = "unknown"
"""The route of a request to nothing that there is."""


class ClientConnection(Protocol):
    """The connection of an exchange, in what no ASGI application can do."""

    @property
    def has_body(self) -> bool:
        """Whether all of the request's body has arrived."""

    def cut(self) -> None:
        """Close it after everything sent so far, without the end of the answer."""

    def watch(self, left: Callable[[], None] | None) -> None:
        """Have this called once when the client leaves, now if it has left; None calls nothing."""


@dataclass(kw_only=True, slots=True, eq=False)
class Exchange:
    """What is known of a request while it is answered."""

    request_id: str
    task: asyncio.Task[object] = field(repr=False)
    began: float
    """When it began, by the bridge's clock."""
    connection: ClientConnection = field(repr=False)
    route: str = UNKNOWN_ROUTE
    """The template of its path."""
    status: int = 0
    """The HTTP status that was sent; 0 before."""
    body_is_pending: bool = False
    """The request has a body that was not read."""
    streams_events: bool = False
    """The answer that began is a stream of events."""
    first_event: float | None = None
    """When the first event of a stream was there, by the same clock."""
    events: int = 0
    """How many events were sent."""
    failure: ErrorResponse | None = None
    _running: bool = True

    def end(self, failure: ErrorResponse) -> None:
        """End the exchange early with this failure. The first one counts."""
        if self._running and self.failure is None:
            self.failure = failure
            self.task.cancel()

    def settle(self) -> None:
        """Take note that the application returned or raised: nothing ends the exchange now."""
        self._running = False

    def was_ended(self) -> bool:
        """Tell, in the handler of a CancelledError, whether `end` was its only cause."""
        return self.failure is not None and self.task.uncancel() == 0


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange to which a scope belongs."""
    return cast("Exchange", scope[_KEY])


def attach(scope: Scope, exchange: Exchange) -> None:
    """Make this the exchange of a scope."""
    scope[_KEY] = exchange


class Departure:
    """Ends an exchange as soon as its caller leaves; entered once the body is read.

    with Departure(exchange, receive):
        ...                                  # cancelled when the client disconnects
    """

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._reading: asyncio.Task[None] | None = None

    async def _read_away(self) -> None:
        """Read a body that nobody asked for: behind it, a departure would not be noticed."""
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
    """Return the exception of a caller who left before the request was complete."""
    return RefusedError(LEFT)

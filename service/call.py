"""The calls in flight: one call, and the bounded set of all calls."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

from chatcompletion.v1.chat_completion_service_pb2 import Charge
from process.trace_context import Carried
from service.call_trace import CallTrace
from service.errors import Draining, Overloaded
from service.telemetry import CallRecord

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Metadata that the bridge sends as response headers: pairs of name and value."""


@dataclass(kw_only=True, slots=True, eq=False)
class Call:
    """One RPC from its arrival to its end."""

    record: CallRecord
    authorization: str | None
    """The metadata `authorization` as received; never logged."""
    carried: Carried
    """W3C Trace Context and Baggage, which are sent to the upstream."""
    deadline: float
    """The deadline by the event loop's clock: the earlier of the caller's deadline and the
    configured maximum."""
    deadline_is_callers: bool
    task: asyncio.Task[object]
    trace: CallTrace | None = None
    """Its spans; None if none are exported."""
    held_bytes: int = 0
    """The size of its request message, once it is received."""
    peer: Callable[[], str] = str
    """Returns the caller's address, as gRPC names it."""
    identity: Callable[[], str] = str
    """Returns the identity of the caller's certificate; "" without one."""
    other_key: str = ""
    """The name under which the metadata has a key instead of `authorization`."""
    idempotency_key: str | None = None
    """The metadata `idempotency-key` as received; "" if it was sent twice; never logged."""
    is_replayed: bool = False
    """Whether the response is the answer to another call with the idempotency key."""
    caller: object = None
    """The caller, set by the authentication."""
    receiving: bool = False
    """Whether the call waits for its request message."""
    draining: bool = False
    """Whether the server ends the call because it shuts down."""
    dispatched: bool = False
    """Whether the upstream may have started to generate, so that a retry could pay twice."""
    begun: bool = False
    """Whether the initial metadata is sent or being sent, so that no client or proxy retries."""
    failing: bool = False
    """Whether the call has failed and its status is being sent."""
    gives_receipt: bool = False
    """Whether the caller gets a receipt; set when the hold is placed."""
    charge: Charge | None = None
    """The receipt, once the store or the journal has the charge."""
    rate_limit: Headers = ()
    """The metadata with the state of the key's limits, if a hold reported it."""
    limits: Callable[[], Awaitable[Headers]] | None = None
    """Reads that metadata from the store. Set if the key has limits. It does not raise."""


CURRENT: Final[ContextVar[Call]] = ContextVar("call")
"""The call that the running task serves; set by the interceptor."""


_LOOK: Final = 0.005
"""Seconds between two checks for new calls."""
_QUIET_LOOKS: Final = 30
"""Consecutive checks without a new call before `quiet` returns. One is not enough, because a busy
event loop can see an expired timer before a call that arrived earlier."""


MOST_BYTES: Final = 256 * 1024 * 1024
"""Default maximum size of all request messages in flight, as in the bridge."""


class Calls:
    """The calls in flight.

        open -> close(): new calls wait -> refuse(): they and all later calls end with DRAINING

    A call that ended counts until its caller has read the end, and no longer than its deadline.

    Args:
        most: The maximum number of calls.
        most_bytes: Maximum size of all their request messages, in bytes.
    """

    def __init__(self, most: int, *, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._arrived = 0
        self._closing = False
        self._refused = asyncio.Event()
        self._running: set[Call] = set()
        self._unread: set[Call] = set()
        self._settled = asyncio.Event()
        self._settled.set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._running) + len(self._unread)

    async def enter(self) -> None:
        """Check that a call that was added can run.

        Raises:
            Overloaded: There are too many.
            Draining: No new calls are accepted; raised when `refuse` is called.
        """
        if len(self) > self._most:
            self._let_go()
            if len(self) > self._most:
                raise Overloaded
        if self._closing:
            await self._refused.wait()
            raise Draining

    async def leave(self) -> None:
        """Delay the end of a complete call while new calls wait for `refuse`.

        Otherwise, its caller could call again immediately, and that call would cross the GOAWAY.
        """
        if self._closing:
            await self._refused.wait()

    def close(self) -> None:
        """Make every new call, and the end of every other, wait for `refuse`."""
        self._closing = True

    async def quiet(self) -> None:
        """Wait until no call has arrived for a moment."""
        looks, seen = 0, self._arrived
        while looks < _QUIET_LOOKS:
            await asyncio.sleep(_LOOK)
            looks, seen = (looks + 1 if seen == self._arrived else 0), self._arrived

    def refuse(self) -> None:
        """End the waiting calls and every later call with DRAINING."""
        self._closing = True
        self._refused.set()

    def add(self, call: Call) -> None:
        """Add a call that begins."""
        self._arrived += 1
        self._running.add(call)
        self._settled.clear()
        self._idle.clear()

    def hold_bytes(self, call: Call, size: int) -> None:
        """Count the request message of a call until the call ends.

        Raises:
            Overloaded: All messages in flight together would be too large.
        """
        if self._bytes + size > self._most_bytes:
            raise Overloaded(
                "The server has as many large requests in progress as it accepts. "
                "Try again shortly."
            )
        self._bytes += size
        call.held_bytes = size

    def end(self, call: Call) -> None:
        """Mark a call as done, except that its caller has not read the end."""
        self._bytes -= call.held_bytes
        call.held_bytes = 0
        if call in self._running:
            self._running.discard(call)
            self._unread.add(call)
            self._look()

    def discard(self, call: Call) -> None:
        """Remove a call whose end was sent."""
        self._running.discard(call)
        self._unread.discard(call)
        self._look()

    def _let_go(self) -> None:
        """Remove ended calls whose deadlines have passed."""
        now = asyncio.get_running_loop().time()
        self._unread = {call for call in self._unread if call.deadline > now}
        self._look()

    def _look(self) -> None:
        if not self._running:
            self._settled.set()
            if not self._unread:
                self._idle.set()

    async def settled(self) -> None:
        """Wait until the work of every call is done."""
        await self._settled.wait()

    async def idle(self) -> None:
        """Wait until the ends of all calls were sent."""
        await self._idle.wait()

    def cut(self) -> None:
        """End every call in flight with DRAINING, except calls that have failed."""
        for call in self._running:
            if not call.failing:
                call.draining = True
                call.task.cancel()

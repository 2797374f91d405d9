"""A call in flight, as the parts of the service know it, and the bounded set of all of them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.errors import Draining, Overloaded
from service.telemetry import CallRecord

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of metadata that become headers at the REST door."""


@dataclass(kw_only=True, slots=True, eq=False)
class Call:
    """One RPC from its arrival to its end."""

    record: CallRecord
    authorization: str | None
    """The metadata `authorization` as received; never logged."""
    traceparent: str | None
    """W3C Trace Context, to be carried to the upstream."""
    deadline: float
    """When the call must have ended, by the event loop's clock: the caller's deadline or the
    configured maximum, whichever is sooner."""
    deadline_is_callers: bool
    task: asyncio.Task[object]
    caller: object = None
    """Who calls, once the admission knows it."""
    receiving: bool = False
    """The request message is awaited."""
    draining: bool = False
    """The server ends the call because it shuts down."""
    dispatched: bool = False
    """The upstream may have worked for the call."""
    begun: bool = False
    """The initial metadata is sent or being sent, so that no client or proxy retries the call."""
    failing: bool = False
    """The call has failed and its status is being sent."""
    rate_limit: Headers = ()
    """The metadata that tells how much of the key's limits is left."""
    limits: Callable[[], Awaitable[Headers]] | None = None
    """Returns that metadata where no hold told it; there once it is known that the key has limits.
    It does not raise."""


CURRENT: Final[ContextVar[Call]] = ContextVar("call")
"""The call that the running task serves; set by the interceptor."""


_LOOK: Final = 0.005
"""Seconds between two looks for calls that arrived."""
_QUIET_LOOKS: Final = 10
"""Looks in a row that find none before it is quiet: several, because an event loop that was busy
finds an expired timer and a new call at once."""


class Calls:
    """The calls in flight.

        open ──► close(): new calls wait ──► refuse(): they end, and all later ones, with DRAINING

    A call that ended counts until its caller has read the end, but not beyond its deadline.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
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
        """See that a call that was added may run.

        Raises:
            Overloaded: There are too many.
            Draining: No new call is accepted; raised when `refuse` is called.
        """
        if len(self) > self._most:
            self._let_go()
            if len(self) > self._most:
                raise Overloaded
        if self._closing:
            await self._refused.wait()
            raise Draining

    async def leave(self) -> None:
        """Hold a call that is complete back while new ones wait for `refuse`.

        A caller who reads an end may call again at once, and that call would cross GOAWAY.
        """
        if self._closing:
            await self._refused.wait()

    def close(self) -> None:
        """Have every new call, and the end of every other, wait for `refuse`."""
        self._closing = True

    async def quiet(self) -> None:
        """Wait until no call has arrived for a moment."""
        looks, seen = 0, self._arrived
        while looks < _QUIET_LOOKS:
            await asyncio.sleep(_LOOK)
            looks, seen = (looks + 1 if seen == self._arrived else 0), self._arrived

    def refuse(self) -> None:
        """End the calls that wait, and every later one, with the reason DRAINING."""
        self._closing = True
        self._refused.set()

    def add(self, call: Call) -> None:
        """Take note of a call that begins."""
        self._arrived += 1
        self._running.add(call)
        self._settled.clear()
        self._idle.clear()

    def end(self, call: Call) -> None:
        """Take note of a call that did its work: all that is left is that its caller reads."""
        if call in self._running:
            self._running.discard(call)
            self._unread.add(call)
            self._look()

    def discard(self, call: Call) -> None:
        """Take note of a call whose end was sent."""
        self._running.discard(call)
        self._unread.discard(call)
        self._look()

    def _let_go(self) -> None:
        """Count no longer what should have been read by now."""
        now = asyncio.get_running_loop().time()
        self._unread = {call for call in self._unread if call.deadline > now}
        self._look()

    def _look(self) -> None:
        if not self._running:
            self._settled.set()
            if not self._unread:
                self._idle.set()

    async def settled(self) -> None:
        """Wait until every call did its work."""
        await self._settled.wait()

    async def idle(self) -> None:
        """Wait until the end of every call was sent."""
        await self._idle.wait()

    def cut(self) -> None:
        """End every call that runs with the reason DRAINING, except calls that have failed."""
        for call in self._running:
            if not call.failing:
                call.draining = True
                call.task.cancel()

"""An event that takes little memory while nobody waits for it.

`asyncio.Event` has a queue of 0.7 KB from its creation. uvicorn has two events for each connection
with a request.
"""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class LazyEvent:
    """The methods of `asyncio.Event` that uvicorn uses."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None
        self._is_set = False

    def set(self) -> None:
        """Set the event, and wake all who wait for it."""
        self._is_set = True
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def clear(self) -> None:
        """Clear the event."""
        self._is_set = False

    async def wait(self) -> bool:
        """Return True as soon as the event is set."""
        if self._is_set:
            return True
        if self._event is None:
            self._event = asyncio.Event()
        return await self._event.wait()


class LeanFlow(FlowControl):
    """uvicorn's state of reading and writing, with a `LazyEvent`.

    Args:
        transport: The transport of the connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = False
        self.write_paused = False
        event = LazyEvent()
        event.set()
        self._is_writable_event = event  # type: ignore[assignment] # it has the methods in use

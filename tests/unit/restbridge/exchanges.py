"""An exchange without a socket."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Scope

from restbridge.http.exchange import Exchange, attach


@dataclass(kw_only=True, slots=True)
class FakeTimer:
    """A scheduled call."""

    due: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass(kw_only=True, slots=True)
class FakeClock:
    """A clock that a test moves."""

    now: float = 0.0
    timers: list[FakeTimer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> FakeTimer:
        timer = FakeTimer(due=self.now + delay, callback=callback)
        self.timers.append(timer)
        return timer

    async def advance(self, seconds: float) -> None:
        """Advance the clock, and run the calls that are due."""
        end = self.now + seconds
        while due := [t for t in self.timers if not t.cancelled and t.due <= end]:
            first = min(due, key=lambda timer: timer.due)
            self.timers.remove(first)
            self.now = first.due
            first.callback()
            await turn()
        self.now = end

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for timer in self.timers)


async def turn() -> None:
    """Run all tasks that can run."""
    for _ in range(5):
        await asyncio.sleep(0)


class Wire:
    """The ASGI channels of one exchange, and its connection.

    `gate` delays sent messages, and `unread` the client's reading of them.
    """

    def __init__(self, *received: Message) -> None:
        self.sent: list[Message] = []
        self.was_cut = False
        self.has_request = True
        self.has_body = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.unread = asyncio.Event()
        self.unread.set()
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._left: Callable[[], None] | None = None
        for message in received:
            self._received.put_nowait(message)

    async def receive(self) -> Message:
        return await self._received.get()

    async def send(self, message: Message) -> None:
        await self.gate.wait()
        self.sent.append(message)

    def cut(self) -> None:
        self.was_cut = True

    def forget_request(self) -> None:
        self.has_request = False

    async def drained(self) -> None:
        await self.unread.wait()

    def watch(self, left: Callable[[], None] | None) -> None:
        self._left = left

    def leave(self) -> None:
        self._received.put_nowait({"type": "http.disconnect"})
        if self._left is not None:
            self._left()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def ended(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", False)


def exchange(**members: Any) -> Exchange:
    """Return an exchange of the current task."""
    task = asyncio.current_task()
    assert task is not None
    usual = {"request_id": "req_1", "task": task, "began": 0.0, "connection": Wire()}
    return Exchange(**{**usual, **members})


def scope(*headers: tuple[bytes, bytes], of: Exchange | None = None, **members: Any) -> Scope:
    """Return the scope of an exchange."""
    made: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "headers": list(headers),
        **members,
    }
    attach(made, of or exchange())
    return made

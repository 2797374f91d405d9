"""Answers that a test has laid down word for word.

(model, streamed?) -> Script, played instead of anything the simulator would say
"""

from dataclasses import dataclass

from service.simulator.exchange import EVENT_STREAM, JSON, Exchange, Headers
from service.simulator.streaming import DONE, send_events


@dataclass(kw_only=True, frozen=True, slots=True)
class Script:
    """One laid-down answer."""

    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    events: tuple[bytes, ...] = ()
    done: bool = True
    """Send `[DONE]` after the events."""

    async def play(self, exchange: Exchange) -> None:
        """Write the answer."""
        if self.body is not None:
            exchange.reply(
                self.status, self.body, content_type=self.content_type, headers=self.headers
            )
            return
        exchange.head(self.status, content_type=self.content_type, headers=self.headers)
        await send_events(exchange, self.events, 0.0)
        if self.done:
            exchange.body(DONE)
        exchange.end()


class Scripts:
    """The laid-down answers of a server."""

    def __init__(self) -> None:
        self._scripts: dict[tuple[str, bool], Script] = {}

    def lay_down_reply(
        self, model: str, *, status: int, body: bytes, content_type: str, headers: Headers
    ) -> None:
        """Answers unary requests for `model` with this body."""
        self._scripts[model, False] = Script(
            status=status, body=body, content_type=content_type, headers=tuple(headers)
        )

    def lay_down_stream(
        self, model: str, events: list[bytes], *, status: int, done: bool, headers: Headers
    ) -> None:
        """Answers streaming requests for `model` with these events."""
        self._scripts[model, True] = Script(
            status=status,
            content_type=EVENT_STREAM,
            events=tuple(events),
            done=done,
            headers=tuple(headers),
        )

    def find(self, model: str, *, stream: bool) -> Script | None:
        """Find the answer for a request; one laid down for the other form serves both."""
        if not self._scripts:
            return None
        return self._scripts.get((model, stream)) or self._scripts.get((model, not stream))

    def clear(self) -> None:
        """Forgets all."""
        self._scripts.clear()

"""Fixed responses that tests define.

(model, streamed?) -> Script, which replaces the simulator's own response
"""

from dataclasses import dataclass

from service.simulator.exchange import EVENT_STREAM, JSON, Exchange, Headers
from service.simulator.streaming import DONE, send_events


@dataclass(kw_only=True, frozen=True, slots=True)
class Script:
    """One fixed response."""

    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    events: tuple[bytes, ...] = ()
    done: bool = True
    """Whether to send `[DONE]` after the events."""

    async def play(self, exchange: Exchange) -> None:
        """Write the response."""
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
    """The fixed responses of a server."""

    def __init__(self) -> None:
        self._scripts: dict[tuple[str, bool], Script] = {}

    def lay_down_reply(
        self, model: str, *, status: int, body: bytes, content_type: str, headers: Headers
    ) -> None:
        """Return this body for unary requests for `model`."""
        self._scripts[model, False] = Script(
            status=status, body=body, content_type=content_type, headers=tuple(headers)
        )

    def lay_down_stream(
        self, model: str, events: list[bytes], *, status: int, done: bool, headers: Headers
    ) -> None:
        """Return these events for streaming requests for `model`."""
        self._scripts[model, True] = Script(
            status=status,
            content_type=EVENT_STREAM,
            events=tuple(events),
            done=done,
            headers=tuple(headers),
        )

    def find(self, model: str, *, stream: bool) -> Script | None:
        """Return the response for a request. One for the other kind of request serves both."""
        if not self._scripts:
            return None
        return self._scripts.get((model, stream)) or self._scripts.get((model, not stream))

    def clear(self) -> None:
        """Remove all fixed responses."""
        self._scripts.clear()

"""Sends streams at their pace.

time to first token -> head -> event -> inter-token delay -> event ... -> [DONE] -> end
"""

import asyncio
from collections.abc import Iterable

from service.simulator.exchange import Exchange

DONE = b"data: [DONE]\n\n"

_EVENTS_PER_TURN = 16
"""Maximum events without a delay before other connections run."""


async def send_events(exchange: Exchange, payloads: Iterable[bytes], delay: float) -> None:
    """Send one event per payload, each in a separate write, with `delay` seconds between two."""
    for row, payload in enumerate(payloads):
        if row:
            if delay:
                await asyncio.sleep(delay)
            elif row % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        exchange.event(payload)
        if exchange.congested:
            await exchange.drained()


async def send_bytes(exchange: Exchange, piece: bytes, times: int) -> None:
    """Write the same piece of a body `times` times, at the pace of the client."""
    for number in range(times):
        exchange.body(piece)
        if exchange.congested:
            await exchange.drained()
        elif number % _EVENTS_PER_TURN == 0:
            await asyncio.sleep(0)


def finish(exchange: Exchange) -> None:
    """Write the regular end of a stream."""
    exchange.body(DONE)
    exchange.end()


async def forever() -> None:
    """Wait until the client disconnects or the simulator stops."""
    await asyncio.get_running_loop().create_future()

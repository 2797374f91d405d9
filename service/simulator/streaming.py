"""Sending a stream at its pace.

time to first token -> head -> event -> inter-token delay -> event ... -> [DONE] -> end
"""

import asyncio
from collections.abc import Iterable

from service.simulator.exchange import Exchange

DONE = b"data: [DONE]\n\n"

_EVENTS_PER_TURN = 16
"""Undelayed events in a row before other connections have their turn."""


async def send_events(exchange: Exchange, payloads: Iterable[bytes], delay: float) -> None:
    """One event per payload, each a write of its own, `delay` seconds between two."""
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
    """Write the same piece of a body again and again, at the pace of the caller."""
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
    """Wait until the caller leaves or the simulator stops."""
    await asyncio.get_running_loop().create_future()

"""Waits until a condition holds or an event is set, for at most `PATIENCE`.

await until(lambda: service.calls_in_flight == 0, "a call still runs")
await wait(fake.begun)
"""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 20.0
"""Maximum seconds of a wait; then, the test fails."""
_PAUSE: Final = 0.001
"""Seconds."""


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Poll until a condition holds for which there is no event.

    There is a pause between polls, because a busy event loop keeps other threads, such as the
    store's, from the interpreter's lock for seconds.

    Raises:
        AssertionError: The condition does not hold within `PATIENCE`.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not condition():
        assert loop.time() < end, what or "the condition never held"
        await asyncio.sleep(_PAUSE)


async def wait(event: asyncio.Event) -> None:
    """Wait for an event, or fail."""
    async with asyncio.timeout(PATIENCE):
        await event.wait()

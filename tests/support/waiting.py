"""How the tests wait: until a condition holds or an event is set, for at most `PATIENCE`.

await until(lambda: service.calls_in_flight == 0, "a call still runs")
await wait(fake.begun)
"""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 20.0
"""Seconds after which a test has failed rather than waits on."""
_PAUSE: Final = 0.001
"""Seconds."""


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Look again and again until a condition holds that no event tells.

    There is a pause between looks: an event loop that never rests keeps other threads, the store's
    among them, from the interpreter's lock for seconds.

    Raises:
        AssertionError: it does not within `PATIENCE`.
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

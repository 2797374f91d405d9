"""A bridge in this process, on a free port, in front of any service.

async with bridge(running.address) as door:
    ...                     http://{door.address}
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from process import settings as process_settings
from restbridge.config import Settings
from restbridge.event_stream import SILENCE
from restbridge.http.limits import Limits
from restbridge.server import Bridge

PATH: Final = "/v1/chat/completions"


@asynccontextmanager
async def bridge(
    target: str, *, limits: Limits | None = None, silence: float = SILENCE, **changes: Any
) -> AsyncIterator[Bridge]:
    """Run a bridge on a free port.

    Args:
        target: The address of a service.
        limits: The limits, where they are not what the settings say.
        silence: Seconds without an event before a comment is sent.
        changes: Fields of the bridge's `Settings`.
    """
    usual = process_settings.read(
        Settings,
        {
            "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
            "CHAT_SERVICE_TARGET": target,
        },
    )
    door = Bridge(replace(usual, **changes), limits=limits, silence=silence)
    await door.start()
    try:
        yield door
    finally:
        door.hurry()
        await door.stop(delay=0, grace=0)

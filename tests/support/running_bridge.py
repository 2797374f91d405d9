"""A bridge in this process, on a free port, in front of any service.

async with bridge(running, via=via) as door:
    ...                     http://{door.address}

`via` is a fixture. A test that uses it runs twice: with a socket, as in two processes, and with the
in-process channel, as in `--standalone`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Literal

from prometheus_client import generate_latest

from process import settings as process_settings
from restbridge.config import Settings
from restbridge.event_stream import SILENCE
from restbridge.http.limits import Limits
from restbridge.server import Bridge
from tests.support import canaries
from tests.support.running_service import Running

Via = Literal["wire", "in-process"]
VIAS: Final[tuple[Via, ...]] = ("wire", "in-process")
"""The kinds of connections from a bridge to a service."""

PATH: Final = "/v1/chat/completions"


@asynccontextmanager
async def bridge(
    target: str | Running,
    *,
    via: Via = "wire",
    limits: Limits | None = None,
    silence: float = SILENCE,
    **changes: Any,
) -> AsyncIterator[Bridge]:
    """Run a bridge on a free port.

    Args:
        target: A service in this process, or the address of a service.
        via: The kind of connection to the service.
        limits: The limits, or None for those of the settings.
        silence: Seconds without an event before a comment is sent.
        changes: Fields of the bridge's `Settings`.
    """
    usual = process_settings.read(
        Settings,
        {
            "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
            "CHAT_SERVICE_TARGET": target if isinstance(target, str) else target.address,
        },
    )
    channel = None
    if via == "in-process" and not isinstance(target, str):
        channel = target.server.channel()
    door = Bridge(replace(usual, **changes), limits=limits, silence=silence, channel=channel)
    await door.start()
    try:
        yield door
    finally:
        door.hurry()
        await door.stop(delay=0, grace=0)
        canaries.search("a metric", generate_latest(door.telemetry.registry).decode())

"""What the exporters of spans and of metrics share. Imported only if something is exported.

start(settings, registry, …) -> the exporters that the settings ask for, and the end of both
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from threading import Thread
from typing import Final

from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from process import log
from process.command_line import version
from process.randomness import sixteen

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the semantic conventions that the attributes follow."""

SCOPE: Final = "chatcompletion"
"""The name of the instrumentation."""

DEFAULT_ENDPOINT: Final = "http://localhost:4317"
"""The receiver of OpenTelemetry's specification, if no variable names one."""

LONGEST_FLUSH: Final = 2.0
"""Maximum seconds at the end of the process for exporting what is left."""

_QUIET: Final = 60.0
"""Seconds between two log lines about a receiver that fails."""
_UNKNOWN: Final = "unknown_service"
"""The beginning of the name that OpenTelemetry gives to a service without one."""

_log = logging.getLogger(__name__)


@lru_cache(maxsize=8)
def resource(service: str) -> Resource:
    """Return the description of this process, the same for spans and metrics.

    Args:
        service: The name of the service, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has
            another.
    """
    given = dict(Resource.create().attributes)
    own = {"service.version": version(), "service.instance.id": sixteen().hex()}
    if str(given.get(SERVICE_NAME, _UNKNOWN)).startswith(_UNKNOWN):
        given[SERVICE_NAME] = service
    return Resource({**own, **given}, SCHEMA)


async def within(flush: Callable[[], None], longest: float) -> None:
    """Run a blocking function in a thread, which the end of the process does not wait for.

    Args:
        flush: The function.
        longest: Maximum seconds to wait for it.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            flush()
        finally:
            with suppress(RuntimeError):  # the event loop is closed: nobody waits
                loop.call_soon_threadsafe(done.set)

    Thread(target=run, name="telemetry-end", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(longest):
            await done.wait()


class LostExports:
    """Logs exports that fail, a line a minute.

    Args:
        signal: What is exported, such as "spans".
        clock: A monotonic clock in seconds.
    """

    def __init__(self, signal: str, clock: Callable[[], float]) -> None:
        # The exporters log an error for each attempt.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._signal = signal
        self._clock = clock
        self._lost = 0
        self._logged = -_QUIET

    def note(self, count: int) -> None:
        """Take note of an export that failed.

        Args:
            count: The number of spans, or of exports of metrics, that are lost.
        """
        self._lost += count
        now = self._clock()
        if now - self._logged >= _QUIET:
            self._logged = now
            members = log.fields(signal=self._signal, lost=self._lost)
            _log.warning("telemetry is not exported", extra=members)
            self._lost = 0

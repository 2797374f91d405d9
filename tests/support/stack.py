"""All that stands between an SDK and the upstream, on sockets, in this process.

    SDK -HTTP-> bridge -gRPC-> service -HTTP-> simulator
         base_url                              records: what arrived, how it ended

async with stack(["default", "sim-fault:500"]) as running:
    async with running.openai() as client:
        await client.chat.completions.create(model="default", messages=HELLO)

A further door to the same service, with other settings, is `bridge(running.service.address, ...)`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from restbridge.event_stream import SILENCE
from restbridge.server import Bridge
from service.models import Catalogue
from service.simulator import RequestRecord, SimulatorServer
from tests.support import running_service
from tests.support.grpc_client import KEY
from tests.support.running_bridge import Via, bridge
from tests.support.running_service import Running
from tests.support.waiting import PATIENCE, until

PUBLIC: Final = "org/model:tag"
"""A model's name that has to be encoded in a URL."""
UPSTREAM_NAME: Final = "vendor/gemma-3-4b-it"
"""What the upstream calls it."""
HELLO: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": "Hello"}]
LONGEST_LEAVING: Final = 0.25
"""Seconds within which the upstream connection of a caller who left is closed: a promise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """An upstream, a service and a bridge that run."""

    upstream: SimulatorServer
    service: Running
    bridge: Bridge

    @property
    def base_url(self) -> str:
        """What an SDK is given."""
        return f"http://{self.bridge.address}/v1"

    def openai(self, **options: Any) -> AsyncOpenAI:
        """Return a client with the key, which does not retry; the options are the SDK's."""
        return AsyncOpenAI(**{**self.options, **options})

    @property
    def options(self) -> dict[str, Any]:
        """What the SDK's clients are made with."""
        return {"base_url": self.base_url, "api_key": KEY, "max_retries": 0, "timeout": PATIENCE}

    def http(self, **options: Any) -> httpx.AsyncClient:
        """Return a client for what no SDK sends; it shows the key."""
        usual = {
            "base_url": f"http://{self.bridge.address}",
            "headers": {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
            "timeout": PATIENCE,
            "trust_env": False,
            "verify": False,  # plaintext: there are no certificates to load
        }
        return httpx.AsyncClient(**{**usual, **options})

    async def arrived(self) -> RequestRecord:
        """Return the upstream's record of the oldest request that was not asked for yet."""
        return await arrived(self.upstream)

    async def idle(self) -> None:
        """Wait until nothing is answered any more, at any of the three."""
        await until(lambda: self.bridge.running == 0, "an exchange runs")
        await until(lambda: self.service.calls_in_flight == 0, "a call runs")
        await until(lambda: self.upstream.open_requests == 0, "a request is open")


@asynccontextmanager
async def stack(
    names: Catalogue | Mapping[str, str] | Iterable[str] = (),
    *,
    upstream: Mapping[str, Any] | None = None,
    service: Mapping[str, Any] | None = None,
    silence: float = SILENCE,
    via: Via = "wire",
    **changes: Any,
) -> AsyncIterator[Stack]:
    """Run everything.

    Args:
        names: The models: their upstream names by their public ones, or names alike at both.
            `PUBLIC` is always one of them, unless it is a catalogue.
        upstream: Of `SimulatorConfig`.
        service: Fields of the service's `Settings`.
        silence: See `bridge`.
        via: See `bridge`.
        changes: Fields of the bridge's `Settings`.
    """
    known: Catalogue | Mapping[str, str]
    if isinstance(names, Catalogue):
        known = names
    else:
        pairs = names if isinstance(names, Mapping) else {name: name for name in names}
        known = {PUBLIC: UPSTREAM_NAME, **pairs}
    async with (
        running_service.simulator(**(upstream or {})) as simulator,
        running_service.service(known, simulator, **(service or {})) as serving,
        bridge(serving, via=via, silence=silence, **changes) as door,
    ):
        yield Stack(upstream=simulator, service=serving, bridge=door)


async def assert_answered(door: Bridge, requests: int) -> None:
    """Check how many requests to the API a bridge has answered."""
    # An answer is counted just after it is sent.
    await until(lambda: _answered(door) >= requests)
    assert _answered(door) == requests


def _answered(door: Bridge) -> int:
    return sum(
        int(sample.value)
        for metric in door.telemetry.registry.collect()
        for sample in metric.samples
        if sample.name == "http_server_request_duration_seconds_count"
        and sample.labels["http_route"].startswith("/v1/")
    )


async def arrived(upstream: SimulatorServer) -> RequestRecord:
    """Return the record of the oldest request that was not asked for yet; waits for it."""
    async with asyncio.timeout(PATIENCE):
        return await upstream.next_record()


async def assert_left(record: RequestRecord, left_at: float) -> None:
    """Check that the upstream connection of a caller who left was closed in time.

    Args:
        record: The upstream's record of the request.
        left_at: When the caller left, by `time.monotonic`.
    """
    async with asyncio.timeout(PATIENCE):
        await record.ended.wait()
    assert record.outcome == "caller_left"
    assert record.finished is not None
    assert record.finished - left_at <= LONGEST_LEAVING


def now() -> float:
    """Return the time by the clock of the upstream's records, the same in every process."""
    return time.monotonic()

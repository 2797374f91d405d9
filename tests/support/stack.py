"""A bridge, a service and an upstream, on sockets, in this process.

    SDK -HTTP-> bridge -gRPC-> service -HTTP-> simulator
         base_url                              records: what arrived, how it ended

async with stack(["default", "sim-fault:500"]) as running:
    async with running.openai() as client:
        await client.chat.completions.create(model="default", messages=HELLO)

For another bridge to the same service, use `bridge(running.service.address, ...)`.
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
from tests.support import canaries, running_service
from tests.support.grpc_client import KEY
from tests.support.running_bridge import Via, bridge
from tests.support.running_service import Running
from tests.support.waiting import PATIENCE, until

PUBLIC: Final = "org/model:tag"
"""The name of a model that must be encoded in a URL."""
UPSTREAM_NAME: Final = "vendor/gemma-3-4b-it"
"""The upstream's name of this model."""
HELLO: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": "Hello"}]
LONGEST_LEAVING: Final = 0.25
"""Maximum seconds until the upstream connection of a disconnected caller is closed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """An upstream, a service and a bridge that run."""

    upstream: SimulatorServer
    service: Running
    bridge: Bridge

    @property
    def base_url(self) -> str:
        """The base URL for SDKs."""
        return f"http://{self.bridge.address}/v1"

    def openai(self, **options: Any) -> AsyncOpenAI:
        """Return an SDK client with the key and without retries. The options are the SDK's."""
        return AsyncOpenAI(**{**self.options, **options})

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the SDK's clients."""
        return {"base_url": self.base_url, "api_key": KEY, "max_retries": 0, "timeout": PATIENCE}

    def http(self, **options: Any) -> httpx.AsyncClient:
        """Return a plain HTTP client with the key, for requests that no SDK sends."""
        usual = {
            "base_url": f"http://{self.bridge.address}",
            "headers": {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
            "timeout": PATIENCE,
            "trust_env": False,
            "verify": False,  # plaintext: there are no certificates to load
            "event_hooks": canaries.HOOKS,
        }
        return httpx.AsyncClient(**{**usual, **options})

    async def arrived(self) -> RequestRecord:
        """Return the upstream's record of the oldest request that was not returned yet."""
        return await arrived(self.upstream)

    async def idle(self) -> None:
        """Wait until the bridge, the service and the upstream have no request in progress."""
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
    """Run a stack.

    Args:
        names: The upstream's model for each public name, or names that are the same for both, or a
            catalogue. Except in a catalogue, `PUBLIC` is added.
        upstream: Arguments of `SimulatorConfig`.
        service: Fields of the service's `Settings`.
        silence: Seconds without an event before the bridge sends a comment.
        via: The kind of connection from the bridge to the service.
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
    """Check the number of requests to the API that a bridge has answered."""
    # The bridge counts a response just after it is sent.
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
    """Wait for the oldest request that was not returned yet, and return its record."""
    async with asyncio.timeout(PATIENCE):
        return await upstream.next_record()


async def assert_left(record: RequestRecord, left_at: float) -> None:
    """Check that the upstream connection of a disconnected caller was closed in time.

    Args:
        record: The upstream's record of the request.
        left_at: The time at which the caller disconnected, by `time.monotonic`.
    """
    async with asyncio.timeout(PATIENCE):
        await record.ended.wait()
    assert record.outcome == "caller_left"
    assert record.finished is not None
    assert record.finished - left_at <= LONGEST_LEAVING


def now() -> float:
    """Return the time by the clock of the upstream's records, the same in every process."""
    return time.monotonic()

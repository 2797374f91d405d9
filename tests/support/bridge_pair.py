"""A bridge in front of a fake service, and a client of it.

async with bridged() as pair:
    pair.service.create = ...
    response = await pair.http.post(PATH, json=REQUEST)

async with pair.connect() as raw:       a socket, for what no client library sends
    answer = await raw.ask(b"GET /healthz HTTP/1.1\\r\\n...")
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
from prometheus_client import generate_latest

from process import settings as process_settings
from restbridge.config import Settings
from restbridge.http.limits import Limits
from restbridge.server import Bridge, limits_of
from tests.support import canaries
from tests.support.fake_service import FakeService, serve
from tests.support.raw_http1 import Raw
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE

REQUEST: Final[Mapping[str, Any]] = {
    "model": "any",
    "messages": [{"role": "user", "content": "hi"}],
}
STREAMED: Final[Mapping[str, Any]] = {**REQUEST, "stream": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A bridge, its fake service, and a client of it."""

    service: FakeService
    bridge: Bridge
    http: httpx.AsyncClient

    @asynccontextmanager
    async def connect(self, limit: int = 2**20) -> AsyncIterator[Raw]:
        """Open a raw connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.bridge.port, limit=limit)
        try:
            yield Raw(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def works(self) -> None:
        """Assert that a normal request succeeds."""
        response = await self.http.post(PATH, json=REQUEST)
        assert response.status_code == 200
        assert response.json()["object"] == "chat.completion"

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the bridge's metrics, or 0 if there is none yet."""
        return self.bridge.telemetry.registry.get_sample_value(name, labels) or 0.0


def settings(target: str, **variables: str) -> Settings:
    """Return settings for tests: free local ports, and no drain delay."""
    return process_settings.read(
        Settings,
        {
            "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
            "CHAT_BRIDGE_DRAIN_DELAY": "0",
            "CHAT_SERVICE_TARGET": target,
            **variables,
        },
    )


@asynccontextmanager
async def bridge_to(
    fake: FakeService,
    *,
    silence: float = 15.0,
    change: Callable[[Limits], Limits] = lambda limits: limits,
    **variables: str,
) -> AsyncIterator[Pair]:
    """Run a bridge to a service, with a client of it."""
    chosen = settings(fake.address, **variables)
    bridge = Bridge(chosen, limits=change(limits_of(chosen)), silence=silence)
    await bridge.start()
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{bridge.address}",
            timeout=PATIENCE,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
            event_hooks=canaries.HOOKS,
        ) as http:
            yield Pair(service=fake, bridge=bridge, http=http)
    finally:
        await bridge.stop(delay=0, grace=0)
        canaries.search("a metric", generate_latest(bridge.telemetry.registry).decode())


@asynccontextmanager
async def bridged(
    *, options: Iterable[tuple[str, Any]] = (), **arguments: Any
) -> AsyncIterator[Pair]:
    """Run a fake service and a bridge to it. The arguments are those of `bridge_to`."""
    fake = FakeService()
    async with serve(fake, options), bridge_to(fake, **arguments) as pair:
        yield pair


async def broken(parts: AsyncIterator[bytes]) -> bytes:
    """Read the rest of a body, which must end without its last chunk."""
    body = bytearray()

    async def read() -> None:
        async for part in parts:
            body.extend(part)

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        await read()
    return bytes(body)


def events(body: bytes) -> list[str]:
    """Return the data of the events of a stream and its keep-alives, and assert their framing.

    A receipt, which is a comment, is left out.
    """
    assert body.endswith(b"\n\n")
    parts = [part for part in body.decode().split("\n\n")[:-1] if not part.startswith(": charge ")]
    assert all(part.startswith("data: ") or part == ": keep-alive" for part in parts)
    assert all("\n" not in part and "\r" not in part for part in parts)
    return [part.removeprefix("data: ") for part in parts]


def contents(said: Iterable[str]) -> str:
    """Return the concatenated contents of the chunks among these events."""
    documents = [json.loads(part) for part in said if part.startswith("{")]
    return "".join(
        document["choices"][0]["delta"]["content"]
        for document in documents
        if "choices" in document
    )

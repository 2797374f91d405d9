"""A service and its upstream in this process, on sockets.

simulator(...)                          the upstream, on a free port
service({name: upstream model}, ...)    a server, and a client of it

async with simulator() as upstream, service(["any"], upstream) as running:
    completion = await running.client.create("any")
    await running.rests()
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, Final

from prometheus_client import generate_latest

from process import settings as process_settings
from service.config import Settings
from service.ledger.store import TIMEOUTS, Timeouts
from service.models import Catalogue
from service.models_document import catalogue
from service.server import Server
from service.simulator import SimulatorConfig, SimulatorServer
from service.upstream_dialect import StreamEnd
from tests.support import canaries
from tests.support.grpc_client import KEY, Client, client
from tests.support.waiting import until

UPSTREAM_KEY: Final = canaries.secret("sk-upstream-fedcba9876543210")
"""The key that `service` sends to its upstream."""


@asynccontextmanager
async def simulator(**config: Any) -> AsyncIterator[SimulatorServer]:
    """Run an upstream on a free port. The arguments are those of `SimulatorConfig`."""
    async with await SimulatorServer.start(SimulatorConfig(**config)) as server:
        yield server


def models(
    names: Mapping[str, str] | Iterable[str],
    upstream: SimulatorServer | str,
    *,
    key: str = UPSTREAM_KEY,
    stream_end: StreamEnd = "lenient",
    maximum_output_tokens: int = 1_000_000,
) -> Catalogue:
    """Return a catalogue.

    Args:
        names: The upstream's model for each public name, or names that are the same for both.
        upstream: A simulator, or a base URL without `/v1`.
        key: The upstream's key; "" for none.
        stream_end: The `stream_end` of the upstream.
        maximum_output_tokens: The maximum output tokens of each model.
    """
    pairs = names if isinstance(names, Mapping) else {name: name for name in names}
    base_url = upstream if isinstance(upstream, str) else upstream.base_url
    entry = {
        "upstream": "upstream",
        "default_output_tokens": 1024,
        "maximum_output_tokens": maximum_output_tokens,
    }
    return catalogue(
        {
            "upstreams": {
                "upstream": {
                    "base_url": base_url,
                    **({"api_key_variable": "KEY"} if key else {}),
                    "stream_end": stream_end,
                }
            },
            "models": {name: {**entry, "upstream_model": at} for name, at in pairs.items()},
        },
        {"KEY": key},
    )


def several(
    upstreams: Mapping[str, SimulatorServer | str | Mapping[str, Any]],
    entries: Mapping[str, Mapping[str, Any]],
    **keys: str,
) -> Catalogue:
    """Return a catalogue of several upstreams.

    Args:
        upstreams: Each upstream by its name: a simulator, a base URL, or the members of its table.
        entries: The members of each model. Without limits, it has those of `models`; without a
            name at the upstream, its own name.
        keys: The values of the variables of keys.
    """
    tables = {
        name: {"base_url": at if isinstance(at, str) else at.base_url}
        if isinstance(at, str | SimulatorServer)
        else dict(at)
        for name, at in upstreams.items()
    }
    usual = {"default_output_tokens": 1024, "maximum_output_tokens": 1_000_000}
    return catalogue(
        {
            "upstreams": tables,
            "models": {
                name: {**usual, "upstream_model": name, **entry} for name, entry in entries.items()
            },
        },
        keys,
    )


def settings(**changes: Any) -> Settings:
    """Return settings for tests: a free local port, no metrics port, no drain delay."""
    usual = process_settings.read(
        Settings,
        {
            "CHAT_LISTEN": "127.0.0.1:0",
            "CHAT_ADMIN_LISTEN": "127.0.0.1:0",
            "CHAT_METRICS_LISTEN": "none",
            "CHAT_BOOTSTRAP_API_KEY": KEY,
            "CHAT_DRAIN_DELAY": "0",
            "CHAT_DRAIN_GRACE": "0",
        },
    )
    return replace(usual, **changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A service in this process, and a client of it."""

    server: Server
    client: Client

    @property
    def address(self) -> str:
        """The address of the listener, as host:port."""
        return self.server.address

    @property
    def calls_in_flight(self) -> int:
        """The number of calls of the contract in flight."""
        return len(self.server._calls)

    async def rests(self) -> None:
        """Wait until no call runs. A caller sees the end of its call before the server does.

        Raises:
            AssertionError: A call runs after `PATIENCE`, or a stream is counted as open.
        """
        await until(lambda: self.calls_in_flight == 0, "a call still runs")
        assert self.metric("chat_upstream_streams_open") == 0

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the metrics, or 0 if there is none yet."""
        return self.server._telemetry.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def service(
    names: Catalogue | Mapping[str, str] | Iterable[str] = ("default",),
    upstream: SimulatorServer | str = "",
    *,
    options: Sequence[tuple[str, Any]] = (),
    timeouts: Timeouts = TIMEOUTS,
    **changes: Any,
) -> AsyncIterator[Running]:
    """Run a service in this process.

    Args:
        names: The models, as for `models`, or a catalogue, which needs no upstream.
        upstream: The upstream, as for `models`.
        options: The options of the client's channel.
        timeouts: The timeouts of the store.
        changes: Fields of `Settings`, as for `settings`.
    """
    known = names if isinstance(names, Catalogue) else models(names, upstream)
    with TemporaryDirectory() as directory:
        places = {
            "database_url": f"sqlite:///{directory}/accounts.sqlite3",
            "journal_directory": f"{directory}/journal",
        }
        server = Server(settings(**{**places, **changes}), known, timeouts=timeouts)
        await server.start()
        try:
            async with client(server.address, options=options) as caller:
                yield Running(server=server, client=caller)
        finally:
            server.hurry()
            await server.stop()
            canaries.search("a metric", generate_latest(server._telemetry.registry).decode())

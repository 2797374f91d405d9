"""A service with its accounts, a bridge and an upstream, on sockets, in this process.

async with accounts_stack({"default": priced(upstream_model="sim:tokens=8")}) as stack:
    team = stack.books.team(credit=CREDIT, requests_per_minute=60)
    answer = await stack.ask("rest", team.key, "default", streamed=True)
    stack.books.charges(team)

The store is a file unless the test names a `database`. The books use a separate connection to it.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import httpx

from restbridge.server import Bridge
from service.ledger.store import TIMEOUTS, Timeouts
from service.simulator import SimulatorServer
from tests.support import canaries, running_service
from tests.support.asking import Answer, DoorName, ask_grpc, ask_rest, document
from tests.support.books import Books, books
from tests.support.grpc_client import Client, client
from tests.support.priced_models import STRICT, models, priced
from tests.support.processes import Process, environment, process
from tests.support.running_bridge import bridge
from tests.support.running_service import Running
from tests.support.waiting import PATIENCE, until


@dataclass(kw_only=True, slots=True, eq=False)
class AccountsStack:
    """The running stack."""

    upstream: SimulatorServer
    service: Running
    bridge: Bridge
    web: httpx.AsyncClient
    """A client of the bridge."""
    inside: httpx.AsyncClient
    """A client of another bridge, which calls the service in-process."""
    books: Books
    directory: Path
    """The directory with the journal."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """Return a channel to the service."""
        return self.service.client.channel

    async def rests(self) -> None:
        """Wait until no call runs and no hold is open.

        A call that is cancelled twice, by its caller and by its deadline, ends before its hold.

        Raises:
            AssertionError: This is not so within `PATIENCE`.
        """
        await self.service.rests()
        await until(self.books.no_hold_is_open, "a hold is open")

    async def ask(
        self,
        door: DoorName,
        key: str,
        request: str | Mapping[str, Any],
        *,
        streamed: bool = False,
        deadline: float = PATIENCE,
        leave_after: int | None = None,
    ) -> Answer:
        """Make a call and return its answer.

        Args:
            door: gRPC or one of the bridges.
            key: The caller's API key.
            request: A request, or the name of a model.
            streamed: Whether to request a stream.
            deadline: The deadline in seconds. Only over gRPC; the bridge has its own.
            leave_after: The number of pieces of content after which the caller cancels; None for
                never.
        """
        wanted = document(request) if isinstance(request, str) else dict(request)
        if door == "grpc":
            return await ask_grpc(
                self.channel,
                key,
                wanted,
                streamed=streamed,
                deadline=deadline,
                leave_after=leave_after,
            )
        web = self.web if door == "rest" else self.inside
        return await ask_rest(web, key, wanted, streamed=streamed, leave_after=leave_after)


def journal_directory(directory: Path) -> Path:
    """Return the directory of the journals."""
    return directory / "journal"


def journal_content(directory: Path, names: str) -> bytes:
    """Return the contents of the files with these names in the journal of `directory`."""
    found = b""
    for path in journal_directory(directory).glob(names):
        with suppress(FileNotFoundError):  # the service removes a file that is in the store
            found += path.read_bytes()
    return found


@asynccontextmanager
async def accounts_stack(
    entries: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    database: str | None = None,
    base_urls: Mapping[str, str] | None = None,
    upstream: Mapping[str, Any] | None = None,
    bridge_timeout: float = PATIENCE,
    timeouts: Timeouts = TIMEOUTS,
    **changes: Any,
) -> AsyncIterator[AccountsStack]:
    """Run the stack in a temporary directory.

    Args:
        entries: The entries of the models, as `priced` makes them; one named `default` by default.
        database: The address of an empty store; None for a file in the directory.
        base_urls: The base URLs of further upstreams, by name. `STRICT` is the simulator by
            default.
        upstream: Arguments of `SimulatorConfig`.
        bridge_timeout: The deadline of the bridge's calls, in seconds.
        timeouts: The timeouts of the service's store.
        changes: Fields of the service's `Settings`. Breakers never open by default, because
            many tests let calls fail one after the other.
    """
    with TemporaryDirectory() as name:
        directory = Path(name)
        url = database or f"sqlite:///{directory}/accounts.db"
        async with running_service.simulator(**(upstream or {})) as simulator:
            own_urls = dict.fromkeys(("simulator", STRICT), simulator.base_url)
            base = {**own_urls, **(base_urls or {})}
            own: dict[str, Any] = {
                "database_url": url,
                "journal_directory": str(journal_directory(directory)),
                "bootstrap_api_key": "",
                "breaker_failures": 0,
            }
            async with (
                running_service.service(
                    models(entries or {"default": priced()}, base, "simulator"),
                    timeouts=timeouts,
                    **(own | changes),
                ) as service,
                bridge(service, timeout=bridge_timeout) as door,
                bridge(service, via="in-process", timeout=bridge_timeout) as inner,
                _web(door) as web,
                _web(inner) as inside,
            ):
                with books(url) as opened:
                    yield AccountsStack(
                        upstream=simulator,
                        service=service,
                        bridge=door,
                        web=web,
                        inside=inside,
                        books=opened,
                        directory=directory,
                    )


def _web(door: Bridge) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://{door.address}",
        timeout=PATIENCE,
        trust_env=False,
        verify=False,  # noqa: S501  (plaintext: there are no certificates to load)
        event_hooks=canaries.HOOKS,
    )


@asynccontextmanager
async def service_process(
    directory: Path,
    database: str,
    upstream: SimulatorServer,
    entries: Mapping[str, Mapping[str, Any]],
) -> AsyncIterator[tuple[Process, Client]]:
    """Run `python -m service` until it serves, and dial it. Kill it at the end.

    Args:
        directory: The directory of its journal.
        database: The address of its store.
        upstream: The upstream.
        entries: The entries of the models, as `priced` makes them.
    """
    models_file = directory / "models.toml"
    lines = ["[upstreams.simulator]", f'base_url = "{upstream.base_url}"']
    for name, entry in entries.items():
        lines.append(f'[models."{name}"]')
        for member, value in {"upstream": "simulator", **entry}.items():
            lines.append(f"{member} = {json.dumps(value) if isinstance(value, str) else value}")
    models_file.write_text("\n".join(lines))
    variables = environment(
        CHAT_DATABASE_URL=database,
        CHAT_JOURNAL_DIRECTORY=str(journal_directory(directory)),
        CHAT_MODELS_FILE=str(models_file),
        CHAT_BOOTSTRAP_API_KEY="",
    )
    async with (
        process("service", variables) as running,
        client(await running.address()) as caller,
    ):
        yield running, caller

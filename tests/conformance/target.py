"""The deployables under test: bridge and service in one process, as `make up` runs them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from tests.support.accounts_admin import TOKEN
from tests.support.grpc_client import KEY
from tests.support.processes import environment, process
from tests.support.waiting import PATIENCE

MODEL: Final = "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The addresses of a running process, as host:port, and its keys."""

    grpc: str
    admin: str
    rest: str
    key: str = KEY
    token: str = TOKEN


@asynccontextmanager
async def running() -> AsyncIterator[Target]:
    """Run bridge and service with a simulated upstream."""
    grpc, admin, rest = (f"127.0.0.1:{port}" for port in _free_ports(3))
    variables = environment(
        CHAT_LISTEN=grpc,
        CHAT_ADMIN_LISTEN=admin,
        CHAT_ADMIN_TOKEN=TOKEN,
        CHAT_BRIDGE_LISTEN=rest,
        CHAT_BRIDGE_METRICS_LISTEN="none",
        CHAT_LOG_LEVEL="warning",
        CHAT_BOOTSTRAP_CREDIT="1000",
    )
    async with process("restbridge", variables, "--standalone") as standalone:
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(PATIENCE):
            while not await _is_ready(http, rest):
                assert standalone.process.returncode is None, standalone.lines
        yield Target(grpc=grpc, admin=admin, rest=rest)
        assert standalone.process.returncode is None, "the process ended during the suites"


async def _is_ready(http: httpx.AsyncClient, rest: str) -> bool:
    try:
        return (await http.get(f"http://{rest}/readyz")).is_success
    except httpx.TransportError:
        await asyncio.sleep(0.05)
        return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports

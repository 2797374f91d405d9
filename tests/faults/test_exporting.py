"""Exporters of real processes: at their end, without the packages, and with bad receivers."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.grpc_client import KEY
from tests.support.otlp import receiver, values
from tests.support.processes import Process, environment, process
from tests.support.running_bridge import PATH
from tests.support.tree import ROOT

REQUEST = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
PATHS = os.pathsep.join((str(ROOT), str(ROOT / "protos")))


@asynccontextmanager
async def standalone(**variables: str) -> AsyncIterator[tuple[Process, str]]:
    """Run bridge and service in one process, and yield it with its address."""
    settings = environment(
        CHAT_BRIDGE_LISTEN="127.0.0.1:0",
        CHAT_BRIDGE_METRICS_LISTEN="none",
        CHAT_BRIDGE_DRAIN_DELAY="0",
        CHAT_BRIDGE_DRAIN_GRACE="0",
        CHAT_LOG_FORMAT="json",
        PYTHONPATH=PATHS,
        **variables,
    )
    async with process("restbridge", settings, "--standalone") as running:
        yield running, await running.address()


async def asked(address: str) -> int:
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
        headers = {"authorization": f"Bearer {KEY}"}
        return (await http.post(PATH, json=REQUEST, headers=headers)).status_code


async def test_what_is_left_is_exported_at_the_end() -> None:
    async with receiver() as otlp:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{otlp.address}",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=acme",
            "OTEL_SERVICE_NAME": "ours",
        }
        async with standalone(**variables) as (running, address):
            assert await asked(address) == 200
            running.send(signal.SIGTERM)
            assert await running.exit_status() == 0

    assert len(otlp.spans()) == 4
    assert {each.resource["service.name"] for each in otlp.spans()} == {"ours"}
    assert {each["x-tenant"] for each in otlp.metadata} == {"acme"}
    assert otlp.metrics


async def test_each_worker_is_an_instance() -> None:
    async with receiver() as otlp:
        settings = environment(
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://{otlp.address}",
            CHAT_LOG_FORMAT="json",
            PYTHONPATH=PATHS,
        )
        async with process("service", settings, "--workers", "2") as running:
            await running.event("serving")
            running.send(signal.SIGTERM)
            assert await running.exit_status() == 0

    instances = {
        values(of.resource.attributes)["service.instance.id"]
        for request in otlp.metrics
        for of in request.resource_metrics
    }
    assert len(instances) == 2


async def test_a_receiver_that_hangs_does_not_keep_the_process() -> None:
    # The kernel accepts the connection, and nobody reads from it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = "http://{}:{}".format(*silent.getsockname())
        async with standalone(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as (running, address):
            assert await asked(address) == 200
            running.send(signal.SIGTERM)
            assert await running.exit_status() == 0


@pytest.mark.parametrize("module", ["service", "restbridge"])
async def test_without_the_extra_the_start_says_what_to_install(
    module: str, tmp_path: Path
) -> None:
    hidden = tmp_path / "opentelemetry"
    hidden.mkdir()
    (hidden / "__init__.py").touch()  # in front of the real packages
    settings = environment(
        CHAT_SERVICE_TARGET="nowhere:1",
        OTEL_TRACES_EXPORTER="otlp",
        CHAT_LOG_LEVEL="loud",
        PYTHONPATH=os.pathsep.join((str(tmp_path), PATHS)),
    )
    async with process(module, settings) as running:
        assert await running.exit_status() == 2

    assert [line.partition(" ")[0] for line in running.lines] == [
        "CHAT_LOG_LEVEL",
        "OTEL_TRACES_EXPORTER",
    ]
    assert running.lines[1].endswith(
        "which are missing. Run: pip install 'chatcompletion[otel]', or write: "
        "OTEL_SDK_DISABLED=true"
    )


async def test_a_variable_of_the_packages_that_is_wrong_ends_the_start() -> None:
    settings = environment(
        OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_TIMEOUT="soon", PYTHONPATH=PATHS
    )
    async with process("service", settings) as running:
        assert await running.exit_status() == 1

    [line] = running.lines
    assert line.startswith("OTEL_…: cannot export: ValueError: ")
    assert "soon" in line

"""deploy/monitoring on a real run: every query of the board and of the alerts selects series.

standalone with two workers -> calls that succeed and calls that fail -> a real Prometheus
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from socket import create_server
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.support.processes import environment, run
from tests.support.prometheus import prometheus, tool
from tests.support.running_bridge import PATH
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE, until

FOLDER: Final = ROOT / "deploy" / "monitoring"
BOARD: Final[dict[str, Any]] = json.loads((FOLDER / "board.json").read_text())
ALERTS: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
KEY: Final = "sk-live-0123456789abcdef"
SELECTOR: Final = re.compile(r"\b((?:gen_ai|chat|http|process)_\w+|up)(\{[^}]*\})?(?:\[\w+\])?")
MODELS: Final = """
[upstreams.simulator]
simulator = true
[upstreams.nobody]
base_url = "http://127.0.0.1:9"

[models.moving]
upstreams = [
    {upstream = "nobody", upstream_model = "any"},
    {upstream = "simulator", upstream_model = "default", order = 1},
]
default_output_tokens = 16
maximum_output_tokens = 4096
"""
MODEL: Final = """
[models.{name}]
upstream = "{upstream}"
upstream_model = "{at}"
default_output_tokens = 16
maximum_output_tokens = 4096
input_price = 1
output_price = 1
"""
AT: Final = {
    "default": ("simulator", "default"),
    "failing": ("simulator", "sim-fault:500"),
    "unpaid": ("simulator", "sim-fault:401"),
    "away": ("nobody", "any"),
}


def queries() -> Iterator[str]:
    """Yield the queries of the board."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "1m")


def test_the_rules_are_valid() -> None:
    command = [tool("promtool"), "check", "rules", str(FOLDER / "alerts.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_runbook_has_each_alert_in_order() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    alerts = [rule["alert"] for rule in ALERTS]
    assert re.findall(r"^## (Chat\w+)$", page, re.MULTILINE) == alerts
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        section = page.partition(f"## {rule['alert']}\n")[2].partition("\n## ")[0]
        assert f"Severity: {rule['labels']['severity']}." in section
        assert "**Do.**" in section


def test_the_board_is_one_that_grafana_reads() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] in {"row", "stat", "timeseries"}
    assert len(list(queries())) > 20


def free_ports(count: int) -> list[str]:
    """Return addresses that were free a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Run two workers of both processes; yield the address of REST, and those of metrics by job."""
    models = directory / "models.toml"
    entries = (MODEL.format(name=name, upstream=up, at=at) for name, (up, at) in AT.items())
    models.write_text(MODELS + "".join(entries))
    rest, metrics, bridge_metrics = free_ports(3)
    variables = environment(
        CHAT_BOOTSTRAP_API_KEY=KEY,
        CHAT_BRIDGE_DRAIN_DELAY="0",
        CHAT_BRIDGE_LISTEN=rest,
        CHAT_BRIDGE_METRICS_LISTEN=bridge_metrics,
        CHAT_MAX_CONCURRENT_CALLS="1",
        CHAT_METRICS_LISTEN=metrics,
        CHAT_MODELS_FILE=str(models),
        CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN="0.3",
    )
    command = (sys.executable, "-m", "restbridge", "--standalone", "--workers", "2")
    async with run(command, variables) as running:
        await until(
            lambda: any("workers" in line for line in running.events("serving")), "no workers"
        )
        yield rest, {"service": metrics, "bridge": bridge_metrics}


async def calls(rest: str) -> None:
    """Call every model, and more often at once than the service allows."""
    async with httpx.AsyncClient(
        base_url=f"http://{rest}",
        timeout=PATIENCE,
        trust_env=False,
        headers={"authorization": f"Bearer {KEY}"},
    ) as client:

        async def call(model: str, *, stream: bool = False) -> int:
            asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
            return (await client.post(PATH, json={**asked, "stream": stream})).status_code

        assert await call("default") == 200
        assert await call("default", stream=True) == 200
        assert await call("moving") == 200
        for model in ("failing", "unpaid", "away"):
            assert await call(model) in {502, 503}
        statuses = await asyncio.gather(*(call("default", stream=True) for _ in range(8)))
        assert set(statuses) == {200, 503}


@pytest.mark.alone
@pytest.mark.time_limit(180)
async def test_every_query_selects_series_of_a_real_run(tmp_path: Path) -> None:
    async with serving(tmp_path) as (rest, targets), prometheus(targets, tmp_path) as server:
        await calls(rest)
        selectors = {
            f"{name}{labels}"
            for expression in (*queries(), *(rule["expr"] for rule in ALERTS))
            for name, labels in SELECTOR.findall(re.sub(r"\bby \([^)]*\)", "", expression))
        }
        missing = {*selectors, *queries()}
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while missing:
                    missing = {each for each in missing if not await server.query(each)}
        assert missing == set()
        for rule in ALERTS:
            await server.query(rule["expr"])

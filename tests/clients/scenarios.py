"""The scenarios of every client library, and what is right for each.

client_run = await run(CLIENT)            the lines of the program, and what arrived at the upstream
judge("whole", client_run, CLIENT)
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from service.simulator.text import INTRODUCTION
from tests.support import running_service
from tests.support.grpc_client import KEY
from tests.support.running_bridge import bridge
from tests.support.tree import ROOT

HERE: Final = Path(__file__).parent
BROKEN: Final = {
    "broken-error": "sim-fault:error-event",
    "broken-cut": "sim-fault:cut-chunked-body",
    "broken-end": "sim-fault:clean-end-mid-stream",
    "broken-first": "sim-fault:500,ttft=0.5",
}
"""Scenarios of a stream that breaks, and the upstream's fault. The last breaks before any text, but
after the head of the response."""
SILENT: Final = {"streamed": "sim:ttft=0.3"}
"""The stream begins with comments of the bridge, because the first token comes late."""
SCENARIOS: Final = ("whole", "streamed", "tools", "structured", "refused", "history", *BROKEN)
SILENCE: Final = 0.1
"""Seconds without an event before the bridge sends a comment."""
LONGEST: Final = 120.0
"""Maximum seconds of a program, which includes the start of a compiler or an interpreter."""
FEWEST_PIECES: Final = 5
"""A stream of 13 tokens arrives in at least this number of pieces."""
Between = Callable[[str, Iterable[str]], AbstractAsyncContextManager[str]]
"""Runs a server in front of the simulator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """A program that uses one library."""

    name: str
    command: tuple[str, ...]
    """The program and its arguments."""
    needs: tuple[Path, ...]
    """Files that must exist; `make test-clients` installs or builds them."""
    refused: str
    """The class of the library's exception for a request with a wrong parameter."""
    broken: tuple[str, ...]
    """The classes of its exceptions for a broken stream."""
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientRun:
    """The result of one program."""

    client: Client
    lines: Mapping[str, Mapping[str, Any]]
    """By scenario."""
    requests: Mapping[str, Sequence[Mapping[str, Any]]]
    """The bodies that arrived at the upstream, by scenario."""
    complaints: str
    """Its standard error."""


def require(*paths: Path) -> None:
    """Skip the test if one of these files does not exist; if `CI` is set, fail it."""
    for path in paths:
        if not path.exists():
            missing = f"{path.relative_to(ROOT)} is missing: `make test-clients` makes it"
            if os.environ.get("CI"):
                pytest.fail(missing)
            pytest.skip(missing)


@asynccontextmanager
async def nothing(base_url: str, _: Iterable[str]) -> AsyncIterator[str]:
    """Yield the simulator itself."""
    yield base_url


async def run(client: Client, between: Between = nothing) -> ClientRun:
    """Run the program of a library against a stack of its own.

    Args:
        client: The library.
        between: Runs a server between the service and the simulator. It gets the simulator's base
            URL and the names of its models, and yields a base URL.
    """
    require(*client.needs)
    names = {name: f"plain-{name}" for name in SCENARIOS} | BROKEN | SILENT
    async with (
        running_service.simulator(completion_tokens=13) as simulator,
        between(simulator.base_url, names.values()) as upstream,
        running_service.service(names, upstream) as serving,
        bridge(serving, silence=SILENCE) as door,
    ):
        printed, complaints = await _printed(client, f"http://{door.address}/v1")
        await serving.rests()
        requests: dict[str, list[Mapping[str, Any]]] = {name: [] for name in SCENARIOS}
        for index in range(len(simulator.records)):
            record = simulator.records[index]
            if record.body:  # LiteLLM's proxy also asks for the models
                [name] = [n for n, model in names.items() if model == record.document["model"]]
                requests[name].append(record.document)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return ClientRun(
        client=client,
        lines={line["scenario"]: line for line in lines},
        requests=requests,
        complaints=complaints[-4000:],
    )


async def _printed(client: Client, base_url: str) -> tuple[str, str]:
    """Run the program, and return its standard output and standard error."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *client.command,
        cwd=HERE,
        env={**inherited, "BASE_URL": base_url, "API_KEY": KEY, **client.variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(LONGEST):
            printed, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return printed.decode(), complaints.decode()


# ------------------------------------------------------------------------------------ judgement


def judge(scenario: str, client_run: ClientRun) -> None:
    """Assert that what came of a scenario is right."""
    assert scenario in client_run.lines, client_run.complaints
    line = client_run.lines[scenario]
    if scenario in BROKEN:
        _broken(line, client_run)
    else:
        assert "error" not in line or scenario == "refused", line
        _RIGHT[scenario](line, client_run)


def _whole(line: Mapping[str, Any], _: ClientRun) -> None:
    assert line["text"] == INTRODUCTION
    assert line["tokens"] == 13


def _streamed(line: Mapping[str, Any], client_run: ClientRun) -> None:
    assert line["text"] == INTRODUCTION
    assert line["pieces"] >= FEWEST_PIECES
    assert line.get("tokens") in {13, None}
    [request] = client_run.requests["streamed"]
    assert request["stream"] is True


def _tools(line: Mapping[str, Any], client_run: ClientRun) -> None:
    assert line["text"] == INTRODUCTION
    assert line["call"]["name"] == "weather"
    _is_weather(line["call"]["arguments"])
    first, *_, second = client_run.requests["tools"]
    assert [tool["function"]["name"] for tool in first["tools"]] == ["weather"]
    *_, called, result = second["messages"]
    [call] = called["tool_calls"]
    assert (called["role"], result["role"]) == ("assistant", "tool")
    assert call["id"] == result["tool_call_id"]
    assert json.loads(call["function"]["arguments"]) == line["call"]["arguments"]
    assert "Rain." in json.dumps(result["content"])


def _structured(line: Mapping[str, Any], _: ClientRun) -> None:
    _is_weather(line["object"])


def _is_weather(found: Mapping[str, Any]) -> None:
    assert set(found) == {"city", "days"}
    assert isinstance(found["city"], str)
    assert isinstance(found["days"], int)


def _refused(line: Mapping[str, Any], client_run: ClientRun) -> None:
    assert line["error"]["class"] == client_run.client.refused
    assert "top_p" in line["error"]["message"]
    assert client_run.requests["refused"] == []


def _history(line: Mapping[str, Any], client_run: ClientRun) -> None:
    assert line["text"] == INTRODUCTION
    first, second = client_run.requests["history"]
    asked, answered, again = second["messages"][-3:]
    assert asked == first["messages"][-1]
    assert (answered["role"], again["role"]) == ("assistant", "user")
    assert INTRODUCTION in json.dumps(answered["content"])


def _broken(line: Mapping[str, Any], client_run: ClientRun) -> None:
    assert line.get("error", {}).get("class") in client_run.client.broken, line
    # A library can raise the error before it delivers what arrived earlier.
    assert INTRODUCTION.startswith(line["text"])
    assert line["text"] != INTRODUCTION


_RIGHT: Final[Mapping[str, Callable[[Mapping[str, Any], ClientRun], None]]] = {
    "whole": _whole,
    "streamed": _streamed,
    "tools": _tools,
    "structured": _structured,
    "refused": _refused,
    "history": _history,
}

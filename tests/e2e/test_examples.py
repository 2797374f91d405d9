"""gRPC clients in seven languages, and another team's contract that imports ours.

    examples/README.md -> a copy of the contract and the examples -> a program -> a service
    examples/browser   -> Chromium -> gRPC-Web -> Envoy -> a service
    buf.gen.yaml       -> Go, Java and TypeScript of acme.assistant.v1 -> go build

Each program runs once with all examples and once with a model whose upstream limits requests. The
tests of a language are skipped if its tools are missing, except in CI, where they fail.
"""

import asyncio
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import yaml

from service.simulator import SimulatorServer
from service.simulator.text import INTRODUCTION
from tests.support import running_service
from tests.support.chromium import chromium
from tests.support.envoy import envoy_of
from tests.support.example_projects import COMMANDS, TOOLS, Examples, build, copy, execute
from tests.support.grpc_client import KEY
from tests.support.tree import ROOT

pytestmark = pytest.mark.time_limit(500)

MODELS: Final = {"default": "vendor/model", "limited": "sim-fault:429-retry-after=7"}
SCENARIOS: Final = ("unary", "stream", "deadline", "cancel", "tools", "errors")
TOO_LATE: Final = {"deadlineexceeded", "cancelled"}
"""The codes of a call that took too long, in lower case; tonic names the second one."""
STOPPED: Final = {"cancelled", "canceled", "dropped"}
REFUSED: Final = "INVALID_REQUEST (HTTP 422, param temperature, retry no): Invalid 'temperature': "
LIMITED: Final = "UPSTREAM_RATE_LIMITED (HTTP 429, param none, retry after 7000 ms): "


FOREIGN: Final = """\
syntax = "proto3";

package acme.assistant.v1;

import "chatcompletion/v1/chat_completion.proto";

option go_package = "acme.example/assistant/gen/go/acme/assistant/v1;assistantv1";
option java_multiple_files = true;
option java_package = "example.acme.assistant.v1";

service AssistantService {
  rpc Ask(AskRequest) returns (AskResponse);
}

message AskRequest {
  string conversation = 1;
  repeated chatcompletion.v1.ChatMessage messages = 2;
}

message AskResponse {
  chatcompletion.v1.ChatCompletion completion = 1;
}
"""
"""Another team's contract."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return Examples(tmp_path_factory.mktemp("repository"))


# ------------------------------------------------------------------------------------- the examples


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What a program did."""

    sections: dict[str, list[str]]
    """The lines that each example printed."""
    complained: str
    """What the program wrote when the upstream limited requests."""
    outcomes: Counter[str]
    """How the requests of the first run ended at the upstream."""


def sections(printed: str) -> dict[str, list[str]]:
    """Return the lines of each section, which begins with a line `== NAME`."""
    _, *parts = re.split(r"(?m)^== (\w+)\n", printed)
    return {name: text.splitlines() for name, text in zip(parts[::2], parts[1::2], strict=True)}


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, SimulatorServer]]:
    """Run a service whose answers take longer than the deadline of the examples."""
    timing = {"time_to_first_token": 0.2, "inter_token_delay": 0.005}
    async with (
        running_service.simulator(**timing) as upstream,
        running_service.service(MODELS, upstream) as service,
    ):
        yield service.address, upstream


async def outcomes(upstream: SimulatorServer) -> Counter[str]:
    """Return how the requests ended, when the last one has."""
    records = [upstream.records[index] for index in range(len(upstream.records))]
    for record in records:
        await record.ended.wait()
    return Counter(str(record.outcome) for record in records)


async def run_program(directory: Path, language: str, command: str) -> Ran:
    """Run the program of a language with all examples, and then with a limited model."""
    async with serving() as (address, upstream):
        variables = {"CHAT_TARGET": address, "CHAT_KEY": KEY}

        async def run(text: str, **more: str) -> tuple[int, str, str]:
            program = partial(execute, directory, "sh", "-ec", text, **variables, **more)
            return await asyncio.to_thread(program)

        status, printed, complained = await run(command)
        assert status == 0, complained
        ended = await outcomes(upstream)
        one = " -Dexec.args=unary" if language == "java" else " unary"
        status, _, complained = await run(command + one, CHAT_MODEL="limited")
        assert status != 0
    return Ran(sections=sections(printed), complained=complained, outcomes=ended)


async def run_page(directory: Path, profile: Path) -> Ran:
    """Open the page of the browser in Chromium, with Envoy in front of the service."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(directory))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        async with (
            serving() as (address, upstream),
            envoy_of(in_front_of(address, directory / "envoy.yaml")) as proxy,
            chromium(profile) as browser,
        ):
            root = f"http://127.0.0.1:{server.server_port}/index.html?"
            query = {"target": f"http://{proxy.address}", "key": KEY}
            page = await browser.open(root + urlencode(query))
            await page.until("['done', 'failed'].includes(document.title)")
            printed = await page.text("#output")
            ended = await outcomes(upstream)
            page = await browser.open(root + urlencode({**query, "model": "limited"}))
            await page.until("document.title === 'failed'")
            complained = await page.text("#output")
    finally:
        server.shutdown()
        server.server_close()
    return Ran(sections=sections(printed), complained=complained, outcomes=ended)


def in_front_of(address: str, file: Path) -> Any:
    """Return the configuration of a file, on free ports and with the service at an address."""
    configuration = yaml.safe_load(file.read_text(encoding="utf-8"))
    resources = configuration["static_resources"]
    free = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    configuration["admin"] = {"address": free}
    resources["listeners"][0]["address"] = free
    [group] = resources["clusters"][0]["load_assignment"]["endpoints"]
    [endpoint] = group["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = int(address.split(":")[1])
    return configuration


@pytest.fixture(scope="module", params=TOOLS)
def ran(
    request: pytest.FixtureRequest, examples: Examples, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Ran]:
    """Run the program of each language."""
    language: str = request.param
    command = examples.build(language)
    directory = examples.directory(language)
    if language == "browser":
        return language, asyncio.run(run_page(directory, tmp_path_factory.mktemp("profile")))
    return language, asyncio.run(run_program(directory, language, command))


def test_every_language_has_commands() -> None:
    assert set(COMMANDS) == set(TOOLS)
    directories = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()}
    assert directories == set(TOOLS)


def test_the_program_runs_every_example(ran: tuple[str, Ran]) -> None:
    assert tuple(ran[1].sections) == SCENARIOS


def test_answers_are_whole_or_streamed(ran: tuple[str, Ran]) -> None:
    language, found = ran
    if language == "grpcurl":
        text = "\n".join(found.sections["unary"])
        assert f'"content_text": "{INTRODUCTION}' in text
        assert '"total_tokens": ' in text
        assert found.sections["stream"].count("{") > 2
        return
    [whole, usage] = found.sections["unary"]
    assert whole.startswith(INTRODUCTION)
    assert re.fullmatch(r"[1-9][0-9]* tokens", usage)
    assert found.sections["stream"] == [whole]


def test_calls_end_early(ran: tuple[str, Ran]) -> None:
    language, found = ran
    # By the deadline, which grpcurl can reach before it sends the request, and by the cancellation.
    assert found.outcomes["caller_left"] in ({1, 2} if language == "grpcurl" else {2})
    if language == "grpcurl":
        assert "Code: DeadlineExceeded" in "\n".join(found.sections["deadline"])
    else:
        [late], [stopped] = found.sections["deadline"], found.sections["cancel"]
        assert late.replace("_", "").lower() in TOO_LATE
        assert stopped.lower() in STOPPED


def test_the_model_calls_a_function(ran: tuple[str, Ran]) -> None:
    language, found = ran
    text = "\n".join(found.sections["tools"])
    if language == "grpcurl":
        assert '"name": "get_weather"' in text
        assert f'"content_text": "{INTRODUCTION}' in text
    else:
        assert text.startswith(f"called get_weather\n{INTRODUCTION}")


def test_failures_have_a_reason_a_parameter_and_a_time(ran: tuple[str, Ran]) -> None:
    language, found = ran
    text = "\n".join(found.sections["errors"])
    if language == "grpcurl":
        for part in ('"reason": "INVALID_REQUEST"', '"param": "temperature"'):
            assert part in text
        assert '"retry_delay": "7s"' in found.complained
    else:
        assert text.startswith(REFUSED)
        assert LIMITED in found.complained


# ------------------------------------------------------------------------- another team's contract


class Team:
    """The repository of a team whose contract imports ours.

    Args:
        root: Its directory, which does not exist.
        examples: Whose plugins and Go modules the team uses.
    """

    def __init__(self, root: Path, examples: Examples) -> None:
        self.root = root
        self.plugins = examples.plugins()
        self.template = root / "buf.gen.yaml"
        copy(root / "chatcompletion", ("protos",))
        shutil.copy(ROOT / "buf.gen.yaml", self.template)
        (root / "buf.yaml").write_text(
            "version: v2\nmodules:\n  - path: proto\n  - path: chatcompletion/protos\n"
        )
        proto = root / "proto" / "acme" / "assistant" / "v1" / "assistant.proto"
        proto.parent.mkdir(parents=True)
        proto.write_text(FOREIGN)
        for name in ("go.mod", "go.sum"):  # of the module acme.example/assistant
            shutil.copy(examples.directory("go") / name, root / name)

    def generate(self, *arguments: str) -> None:
        """Run `buf generate`."""
        build(self.root, "buf", "generate", *arguments, PATH=self.plugins)

    def build_go(self) -> None:
        """Compile the generated Go."""
        build(self.root, "go", "build", "-mod=mod", "./...")

    def generated(self, name: str) -> str:
        """Return the content of a generated file."""
        return (self.root / "gen" / name).read_text(encoding="utf-8")


@pytest.fixture
def team(examples: Examples, tmp_path: Path) -> Team:
    return Team(tmp_path / "team", examples)


def test_a_foreign_contract_imports_ours(team: Team) -> None:
    # The contract is a Go module of its own here, under the path that the .proto files name.
    team.generate("chatcompletion/protos", "--output", "chatcompletion")
    ours = team.root / "chatcompletion" / "gen" / "go"
    for name in ("go.mod", "go.sum"):
        shutil.copy(team.root / name, ours / name)
    build(ours, "go", "mod", "edit", "-module=chatcompletion.example/go")
    build(
        team.root,
        *("go", "mod", "edit", "-require=chatcompletion.example/go@v0.0.0"),
        f"-replace=chatcompletion.example/go={ours}",
    )

    team.generate("proto")
    team.build_go()

    go = team.generated("go/acme/assistant/v1/assistant.pb.go")
    assert '"chatcompletion.example/go/chatcompletion/v1"' in go
    assert "Messages      []*v1.ChatMessage" in go
    java = team.generated("java/example/acme/assistant/v1/AskResponse.java")
    assert "example.chatcompletion.v1.ChatCompletion getCompletion()" in java
    stubs = team.generated("java/example/acme/assistant/v1/AssistantServiceGrpc.java")
    assert "example.acme.assistant.v1.AskResponse ask(" in stubs
    typescript = team.generated("typescript/acme/assistant/v1/assistant_pb.ts")
    assert 'from "../../../chatcompletion/v1/chat_completion_pb"' in typescript
    assert "export const AssistantService: GenService<{" in typescript


def test_a_team_chooses_the_packages(team: Team) -> None:
    # The override stands in the head of the template, as a comment.
    shown = team.template.read_text(encoding="utf-8")
    uncommented = re.sub(r"(?m)^# ((?:managed:| {2,}).*)$", r"\1", shown)
    assert uncommented != shown
    team.template.write_text(uncommented)

    team.generate()
    team.build_go()

    go = team.generated("go/acme/assistant/v1/assistant.pb.go")
    assert '"acme.example/assistant/gen/go/chatcompletion/v1"' in go
    assert "package chatcompletionv1\n" in team.generated("go/chatcompletion/v1/error.pb.go")
    java = team.generated("java/example/acme/assistant/v1/AskResponse.java")
    assert "example.acme.chatcompletion.v1.ChatCompletion getCompletion()" in java
    assert "package example.acme.chatcompletion.v1;" in team.generated(
        "java/example/acme/chatcompletion/v1/ChatCompletion.java"
    )

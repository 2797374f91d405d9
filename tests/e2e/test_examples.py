"""Clients in Go, Java and TypeScript: the examples, and another team's contract that imports ours.

    examples/README.md -> a copy of the contract and the examples -> a program -> python -m service
    buf.gen.yaml       -> Go, Java and TypeScript of acme.assistant.v1 -> go build

The tests of a language are skipped if its tools are missing, except in CI, where they fail.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from service.simulator.text import INTRODUCTION
from tests.support.grpc_client import KEY
from tests.support.processes import service_process
from tests.support.tree import ROOT

pytestmark = pytest.mark.time_limit(300)

COMMANDS: Final[dict[str, str]] = dict(
    re.findall(
        r"```sh\ncd examples/(\w+)\n(.*?)```",
        (ROOT / "examples" / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
)
"""The commands of the README by language. The last one runs the program, the others build it."""
TOOLS: Final = {"go": ("go",), "java": ("javac", "mvn"), "typescript": ("node", "npm")}
"""The programs that a language needs, beside buf."""
LONGEST: Final = 300.0
"""The maximum time of a command in seconds. The first build fetches packages."""
COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
"""Maven writes them to pipes too."""

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


def path_with(*directories: Path) -> str:
    """Return a PATH that begins with `directories` and the directory of buf."""
    places = (*directories, Path(sys.executable).parent, os.environ.get("PATH", ""))
    return os.pathsep.join(map(str, places))


def execute(directory: Path, *command: str, **variables: str) -> tuple[int, str, str]:
    """Run a command, and kill it and its children if it takes longer than `LONGEST`.

    Args:
        directory: The working directory.
        command: A program and its arguments.
        variables: Changes of the environment. By default, buf is on the PATH.

    Returns:
        The exit status, the standard output and the standard error.
    """
    with subprocess.Popen(  # noqa: S603  (the languages' own tools)
        command,
        cwd=directory,
        env={**os.environ, "PATH": path_with(), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            printed, complained = process.communicate(timeout=LONGEST)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, COLOURS.sub("", printed), COLOURS.sub("", complained)


def build(directory: Path, *command: str, **variables: str) -> None:
    """Run a command, which must succeed. The arguments are those of `execute`."""
    status, printed, complained = execute(directory, *command, **variables)
    assert status == 0, f"{' '.join(command)}: {printed}{complained}"


def copy(root: Path, names: Iterable[str]) -> None:
    """Copy files and directories of the repository, without what was generated or installed."""
    ignored = shutil.ignore_patterns(
        "*.py*", "__pycache__", "gen", "target", "dist", "node_modules"
    )
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, root / name)


class Examples:
    """The examples, in a copy of the repository.

    Args:
        root: The directory of the copy.
    """

    def __init__(self, root: Path) -> None:
        copy(root, ("buf.yaml", "buf.gen.yaml", "protos", "examples"))
        self.root = root
        self._built: set[str] = set()

    def directory(self, language: str) -> Path:
        """Return the directory of an example."""
        return self.root / "examples" / language

    def build(self, language: str) -> str:
        """Build an example once, and return the command that runs it."""
        for tool in TOOLS[language]:
            if shutil.which(tool) is None:
                missing = f"{tool} is not installed"
                if os.environ.get("CI"):
                    pytest.fail(missing)
                pytest.skip(missing)
        *building, run = COMMANDS[language].splitlines()
        if language not in self._built:
            build(self.directory(language), "sh", "-ec", "\n".join(building))
            self._built.add(language)
        return run

    def plugins(self) -> str:
        """Return a PATH with the plugins that the examples use."""
        for language in TOOLS:
            self.build(language)
        programs = self.root / "bin"
        build(self.directory("go"), "go", "install", "tool", GOBIN=str(programs))
        return path_with(
            programs,
            self.directory("java") / "target" / "plugins",
            self.directory("typescript") / "node_modules" / ".bin",
        )


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return Examples(tmp_path_factory.mktemp("repository"))


# ------------------------------------------------------------------------------------- the examples


async def run(directory: Path, command: str, key: str) -> tuple[int, str, str]:
    """Run an example with an API key, against a service of its own. See `execute`."""
    async with service_process() as (service, _):
        address = await service.address()
        return await asyncio.to_thread(
            execute, directory, "sh", "-ec", command, CHAT_TARGET=address, CHAT_KEY=key
        )


def test_every_language_has_commands() -> None:
    assert set(COMMANDS) == set(TOOLS)


@pytest.mark.parametrize("language", TOOLS)
async def test_an_example_prints_a_completion_and_a_stream(
    examples: Examples, language: str
) -> None:
    command = examples.build(language)

    status, printed, complained = await run(examples.directory(language), command, KEY)

    assert status == 0, complained
    whole, usage, streamed = printed.splitlines()
    assert whole.startswith(INTRODUCTION)
    assert streamed == whole
    assert re.fullmatch(r"[1-9][0-9]* tokens", usage)


@pytest.mark.parametrize("language", TOOLS)
async def test_an_example_prints_the_details_of_an_error(examples: Examples, language: str) -> None:
    command = examples.build(language)

    status, printed, complained = await run(examples.directory(language), command, "sk-unknown")

    assert (status, printed) == (1, "")
    [line] = [line for line in complained.splitlines() if "HTTP 401" in line]
    assert line.startswith("INVALID_API_KEY (HTTP 401, retryable: false): Incorrect API key")


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

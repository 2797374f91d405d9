"""docs/contract.md: how others depend on the contract, and what can change.

the table of changes -> each change, made in a copy -> buf breaking accepts or reports it
the input and the commands of the page -> a git repository -> buf
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.tree import ROOT

PAGE: Final = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
BUF: Final = str(Path(sys.executable).with_name("buf"))
CHAT: Final = "chat_completion.proto"
SERVICE: Final = "chat_completion_service.proto"
ERRORS: Final = "error.proto"
ELSEWHERE: Final = "https://git.example/chatcompletion.git"

Edit = tuple[str, str, str, str]
"""A row of the table, a file of the contract, a text that it has once, and its replacement."""

ALLOWED: Final[Sequence[Edit]] = (
    (
        "A new field",
        CHAT,
        "message StreamOptions {",
        "message StreamOptions {\n  optional bool a = 9;",
    ),
    (
        "A new message, in a file that exists or in a new one",
        CHAT,
        "message StreamOptions {",
        "message Another {}\nmessage StreamOptions {",
    ),
    (
        "A new method or service",
        SERVICE,
        "  // Runs a completion and returns it as",
        "  rpc Another(CreateChatCompletionRequest) returns (CreateChatCompletionResponse);\n\n"
        "  // Runs a completion and returns it as",
    ),
    (
        "A new reason of an error",
        ERRORS,
        "  ERROR_REASON_UNSPECIFIED = 0;",
        "  ERROR_REASON_UNSPECIFIED = 0;\n  ERROR_REASON_ANOTHER = 900;",
    ),
    (
        "A field that becomes deprecated",
        CHAT,
        "optional string model = 1;\n\n  // Required. The messages",
        "optional string model = 1 [deprecated = true];\n\n  // Required. The messages",
    ),
    ("Another comment", CHAT, "// The strings.", "// Some strings."),
)
FORBIDDEN: Final[Sequence[tuple[Edit, str]]] = (
    (("A removed field", CHAT, "  optional bool include_usage = 1;\n", ""), "include_usage"),
    (("A renamed field", CHAT, "    string voice_name", "    string voice_label"), "voice_label"),
    (
        (
            "Another type of a field",
            CHAT,
            "optional bool include_obfuscation",
            "optional string include_obfuscation",
        ),
        "include_obfuscation",
    ),
    (
        (
            "A field that is no longer optional",
            CHAT,
            "optional string verbosity",
            "string verbosity",
        ),
        "verbosity",
    ),
    (
        (
            "A field that moves into a oneof",
            CHAT,
            "  optional string reasoning_effort = 24;",
            "  oneof another {\n    string reasoning_effort = 24;\n  }",
        ),
        "reasoning_effort",
    ),
    (
        ("A removed method", "model_service.proto", "  rpc ListModels", "  // rpc ListModels"),
        "ListModels",
    ),
    (
        (
            "Another request of a method",
            SERVICE,
            "(CreateChatCompletionRequest)",
            "(StreamChatCompletionRequest)",
        ),
        "request type",
    ),
    (
        (
            "A unary method that streams",
            SERVICE,
            "returns (CreateChatCompletionResponse)",
            "returns (stream CreateChatCompletionResponse)",
        ),
        "server streaming",
    ),
    (
        ("A removed reason", ERRORS, "ERROR_REASON_UNSPECIFIED = 0;", "ERROR_REASON_NONE = 0;"),
        "NONE",
    ),
    (
        (
            "Another package of the generated code",
            "credit_service.proto",
            'java_package = "example.chatcompletion.v1"',
            'java_package = "example.v1"',
        ),
        "java_package",
    ),
)


def edited(directory: Path, edits: Sequence[Edit]) -> Path:
    """Return a copy of the contract with changes."""
    shutil.copy(ROOT / "buf.yaml", directory / "buf.yaml")
    shutil.copytree(
        ROOT / "protos", directory / "protos", ignore=shutil.ignore_patterns("*.py*", "*.binpb")
    )
    for row, name, old, new in edits:
        file = directory / "protos" / "chatcompletion" / "v1" / name
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, row
        file.write_text(text.replace(old, new), encoding="utf-8")
    return directory


def execute(directory: Path, *command: str) -> tuple[int, str]:
    """Run a command, and return its exit status and its output."""
    done = subprocess.run(  # noqa: S603
        command, cwd=directory, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def shown(name: str) -> str:
    """Return the code between the markers of a name."""
    [text] = re.findall(rf"<!-- {name} -->\n```\w+\n(.*?)```\n<!-- /{name} -->", PAGE, re.DOTALL)
    return str(text)


def test_the_table_lists_the_changes() -> None:
    rows = [(edit[0], "yes") for edit in ALLOWED] + [(edit[0], "no") for edit, _ in FORBIDDEN]
    table = "".join(f"| {change} | {verdict} |\n" for change, verdict in rows)
    assert f"| Change | Within `v1` |\n|---|---|\n{table}<!-- /changes -->" in PAGE


def test_buf_accepts_the_changes_that_are_allowed(tmp_path: Path) -> None:
    changed = edited(tmp_path, ALLOWED)
    against = str(ROOT / "protos" / "frozen.binpb")
    assert execute(changed, BUF, "breaking", "--against", against) == (0, "")


def test_buf_reports_the_changes_that_are_not(tmp_path: Path) -> None:
    changed = edited(tmp_path, [edit for edit, _ in FORBIDDEN])
    against = str(ROOT / "protos" / "frozen.binpb")
    status, reported = execute(changed, BUF, "breaking", "--against", against)
    assert status != 0
    for (row, name, *_), word in FORBIDDEN:
        lines = [line for line in reported.splitlines() if f"/{name}:" in line]
        assert any(word in line for line in lines), (row, reported)


def test_ci_compares_the_contract() -> None:
    assert re.search(r"(?m)^make check$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"(?m)^check: .*\bbreaking\b", makefile)
    assert "$(BIN)/buf breaking --against $(FROZEN)\n" in makefile


def test_a_repository_depends_on_it_through_git(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    edited(source, ())
    identity = ("-c", "user.name=a", "-c", "user.email=a@a.example")
    for command in (
        ("git", "init", "--quiet", "--initial-branch", "main"),
        ("git", "add", "."),
        ("git", *identity, "commit", "--quiet", "--message", "The contract"),
    ):
        assert execute(source, *command)[0] == 0
    team = tmp_path / "team"
    team.mkdir()
    address = source.as_uri() + "/.git"

    template = shown("buf input").replace(ELSEWHERE, address)
    # The plugin is a program of a language; this one comes with every protoc.
    template = template.replace("local: protoc-gen-es", "protoc_builtin: python")
    template = template.replace("    opt: [target=ts, import_extension=js]\n", "")
    protoc = f"[{sys.executable}, -m, grpc_tools.protoc]"
    template = template.replace("    out:", f"    protoc_path: {protoc}\n    out:")
    (team / "buf.gen.yaml").write_text(template, encoding="utf-8")
    assert execute(team, BUF, "generate") == (0, "")
    assert (team / "src/gen/chatcompletion/v1/chat_completion_pb2.py").is_file()

    for line in shown("vendored").splitlines():
        _, *arguments = line.replace(ELSEWHERE, address).split()
        assert execute(team, BUF, *arguments) == (0, "")
    assert (team / "proto-vendored/chatcompletion/v1/error.proto").is_file()

"""The pages of docs/grpc/ show exactly the files of the examples, which are short.

examples/LANGUAGE/* -> tools.example_pages -> docs/grpc/LANGUAGE.md
"""

import json
import re
from typing import Final

import grpc
import pytest

from chatcompletion.v1.chat_completion_service_pb2 import CreateChatCompletionRequest
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from tests.support.tree import ROOT
from tools import example_pages

EXAMPLES: Final = ROOT / "examples"
MOST_LINES: Final = 80
CONFIG: Final = re.compile(r"<!-- service config -->\n```json\n(.*?)```", re.DOTALL)
PINNED: Final = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def test_every_example_has_a_page() -> None:
    directories = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert directories == set(example_pages.TITLES)
    assert directories == {path.stem for path in example_pages.PAGES.iterdir()}


@pytest.mark.parametrize("language", example_pages.TITLES)
def test_a_page_shows_the_files(language: str) -> None:
    shown = (example_pages.PAGES / f"{language}.md").read_text(encoding="utf-8")
    assert shown == example_pages.page(language), "run `make pages`"


@pytest.mark.parametrize("language", example_pages.TITLES)
def test_a_file_is_short(language: str) -> None:
    for file in example_pages.sources(language):
        if file.name != "go.mod":  # mostly the packages of packages
            assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, file


def test_the_captions_are_those_of_files() -> None:
    found = [file for name in example_pages.TITLES for file in example_pages.sources(name)]
    stems = {file.stem for file in found} | {file.stem.lower() for file in found}
    assert set(example_pages.CAPTIONS) <= stems


def test_the_lock_files_have_hashes_and_no_addresses() -> None:
    for language in ("node", "browser"):
        packages = json.loads((EXAMPLES / language / "package-lock.json").read_text())["packages"]
        own = packages.pop("")
        assert {*own["dependencies"].values(), *own["devDependencies"].values()}
        assert all("integrity" in one and "resolved" not in one for one in packages.values())
    crates = (EXAMPLES / "rust" / "crates.lock").read_text()
    assert crates.count("checksum = ") == crates.count("[[package]]") - 1  # its own
    assert "://" not in crates
    python = (EXAMPLES / "python" / "requirements.lock").read_text()
    assert python.count("==") <= python.count("--hash=")
    assert "://" not in python


def test_python_uses_the_versions_of_the_other_tests() -> None:
    example = dict(PINNED.findall((EXAMPLES / "python" / "requirements.lock").read_text()))
    ours = dict(PINNED.findall((ROOT / "requirements-dev.lock").read_text()))
    assert {name: ours.get(name, version) for name, version in example.items()} == example


def test_both_projects_for_typescript_have_the_same_messages_of_google() -> None:
    name = "protos/google/rpc/error_details.proto"
    assert (EXAMPLES / "node" / name).read_text() == (EXAMPLES / "browser" / name).read_text()


def test_grpc_accepts_the_service_config() -> None:
    [text] = CONFIG.findall((ROOT / "docs" / "grpc.md").read_text(encoding="utf-8"))
    [method] = json.loads(text)["methodConfig"]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    options = [("grpc.service_config", text)]
    with grpc.insecure_channel("127.0.0.1:1", options) as channel:
        chat = ChatCompletionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as failure:
            chat.CreateChatCompletion(CreateChatCompletionRequest(), timeout=10)
        # A config that gRPC cannot read fails the call with another text.
        assert "connect" in str(failure.value)

"""The table of client libraries in docs/clients.md has the versions that the tests pin."""

import json
import re
from collections.abc import Iterator
from typing import Final

from tests.support.tree import ROOT

CLIENTS: Final = ROOT / "tests" / "clients"
NO_LIBRARIES: Final = {"llamacpp"}
"""The environments without client libraries."""
NO_CLIENTS: Final = {"zod"}
"""Packages for the programs' own use."""


def _read(name: str) -> str:
    return (CLIENTS / name).read_text(encoding="utf-8")


def _python() -> Iterator[tuple[str, str]]:
    for path in (CLIENTS / "python").glob("*.in"):
        if path.stem not in NO_LIBRARIES:
            yield from re.findall(r"^([\w-]+)\S*==(\S+)$", path.read_text(), re.MULTILINE)


def _node() -> Iterator[tuple[str, str]]:
    for name, version in json.loads(_read("node/package.json"))["devDependencies"].items():
        if name not in NO_CLIENTS:
            yield name, version


def _go() -> Iterator[tuple[str, str]]:
    yield from re.findall(r"^\t(\S+) v(\S+)$", _read("go/go.mod"), re.MULTILINE)


def _java() -> Iterator[tuple[str, str]]:
    found = re.search(r"^LANGCHAIN4J := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    names = r"<artifactId>(\S+)</artifactId>\s*<version>(\S+)</version>\s*</dependency>"
    for name, version in re.findall(names, _read("java/pom.xml")):
        yield name, ", ".join(found[1].split()) if version.startswith("$") else version


def _rust() -> Iterator[tuple[str, str]]:
    yield from re.findall(r'^(async-openai) = { version = "=(\S+)"', _read("rust/Cargo.toml"), re.M)


def test_the_table_has_the_pinned_versions() -> None:
    languages = {"Python": _python, "Node": _node, "Go": _go, "Java": _java, "Rust": _rust}
    rows = "".join(
        f"| `{name}` | {version} | {language} |\n"
        for language, pinned in languages.items()
        for name, version in sorted(pinned())
    )
    expected = f"| Package | Version | Language |\n|---|---|---|\n{rows}"

    text = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- clients -->\n")
    table, _, _ = rest.partition("<!-- /clients -->")
    assert table == expected, expected

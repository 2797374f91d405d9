"""The helpers that test directories share are in `tests/support`, with an index."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import tests.support
from tests.support.tree import ROOT

TESTS = ROOT / "tests"
SHARED = "support"
TOOLS = {"unit": {"mutants", "load"}, "e2e": {"load"}}
"""Each test folder that tests tools, and the folders of these tools."""


def _own_imports(path: Path) -> Iterator[str]:
    """Yield the directories of `tests` that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("tests."):
                yield name.split(".")[1]


def test_directories_import_from_support_and_never_from_each_other() -> None:
    strays = [
        f"{path.relative_to(ROOT)} imports from tests.{imported}"
        for path in sorted(TESTS.rglob("*.py"))
        if "node_modules" not in path.parts
        for imported in _own_imports(path)
        if imported != SHARED
        and imported != (home := path.relative_to(TESTS).parts[0])
        and imported not in TOOLS.get(home, ())
    ]
    assert strays == []


def test_the_index_has_every_helper() -> None:
    listed = re.findall(r"^(\w+\.py) +\w", tests.support.__doc__ or "", re.MULTILINE)
    there = {path.name for path in (TESTS / SHARED).glob("*.py") if path.name != "__init__.py"}
    assert len(listed) == len(set(listed))
    assert set(listed) == there

"""Fails tests that leave files in the working tree, which other runs and `make up` would share.

Each module is checked after its last test; the failure names the files. Tests write to `tmp_path`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]

_CACHES: Final = frozenset(
    {
        *(".git", ".venv", ".venv-audit", "node_modules", "target", "__pycache__"),
        *(".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    }
)
"""Directories into which tools write, before or during the tests."""


def files(root: Path) -> frozenset[str]:
    """Return the paths of all files under a directory, without those in caches."""
    found = []
    for directory, directories, names in os.walk(root):
        directories[:] = [name for name in directories if name not in _CACHES]
        found += [os.path.join(directory, name) for name in names]
    return frozenset(os.path.relpath(path, root) for path in found)


@pytest.fixture(scope="module", autouse=True)
def tree_stays_clean() -> Iterator[None]:
    """Fail if the tests of a module leave files in the working tree."""
    before = files(ROOT)
    yield
    left = sorted(files(ROOT) - before)
    assert not left, f"The tests of this module left files in the working tree: {left}"

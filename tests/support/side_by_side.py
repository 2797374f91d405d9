"""Which tests run side by side, and in which order: a plugin of pytest.

    most tests          in several processes, file by file: `make test` has pytest-xdist do it
    @pytest.mark.alone  one after the other, when those have ended: a promise of time or memory is
                        tested, which a busy machine would break

The files with the longest tests come first, so that no process waits at the end for one of them.
"""

from typing import Final

import pytest

MARK: Final = "alone"
_ORDER: Final = ("clients", "faults", "e2e", "contract", "unit")
"""Directories, by how long their files take."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", f"{MARK}: no other test may run meanwhile")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the longest tests first; the order within a file stays."""
    long = {item.path for item in items if item.get_closest_marker("time_limit") is not None}

    def place(item: pytest.Item) -> tuple[bool, int]:
        directory = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        return item.path not in long, _ORDER.index(directory)

    items.sort(key=place)

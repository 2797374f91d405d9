from pathlib import Path

import pytest

from tests.support.example_projects import Examples, unusable


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(path: Path, name: str, status: int) -> None:
    """Write a program that ends with a status."""
    written = path / name
    written.write_text(f"#!/bin/sh\nexit {status}\n")
    written.chmod(0o755)


def test_a_program_that_is_not_there_cannot_be_used(path: Path) -> None:
    assert unusable("go") == "go is not installed"
    program(path, "go", 2)
    assert unusable("go") == ""


def test_a_cargo_without_a_toolchain_cannot_be_used(path: Path) -> None:
    program(path, "cargo", 1)
    assert unusable("cargo") == "cargo does not run"
    program(path, "cargo", 0)
    assert unusable("cargo") == ""


@pytest.mark.parametrize("variable", ["", "true"])
def test_without_its_tools_an_example_is_skipped_and_fails_in_ci(
    variable: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", variable)
    program(path, "cargo", 1)
    examples = Examples.__new__(Examples)
    expected = pytest.fail.Exception if variable else pytest.skip.Exception
    with pytest.raises(expected, match="cargo does not run"):
        examples.build("rust")

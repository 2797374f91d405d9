"""The built wheel in bare environments: each has one role's requirements, and nothing else.

wheel -> requirements of an extra, from the lock file with its hashes -> a virtual environment
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.tree import ROOT

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

_UV: Final = str(Path(sys.executable).with_name("uv"))


def build_wheel(directory: Path) -> Path:
    """Build the wheel into a directory and return its path."""
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory))
    (wheel,) = directory.glob("*.whl")
    return wheel


def closure(extra: str) -> set[str]:
    """Return the names of the packages that an extra of the project requires, and theirs."""
    found: set[str] = set()
    waiting = [*_own_requirements(extra)]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        asked = requirement.extras or {""}
        if name not in found or requirement.extras:
            found.add(name)
            needed = map(Requirement, metadata.requires(name) or ())
            waiting += [other for other in needed if _applies(other, asked)]
    return found


def install(wheel: Path, extra: str, directory: Path) -> Path:
    """Install the wheel and the requirements of an extra; return the directory of the programs."""
    names = closure(extra)
    blocks = re.split(r"\n(?=\S)", (ROOT / "requirements-dev.lock").read_text())
    lock = directory / "requirements.lock"
    lock.parent.mkdir()
    locked = [block for block in blocks if canonicalize_name(block.split("==")[0]) in names]
    lock.write_text("\n".join(locked) + "\n")
    environment = directory / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    python = str(environment / "bin" / "python")
    pip = (_UV, "pip", "install", "--quiet", "--python", python, "--no-deps")
    _run(*pip, "--require-hashes", "--requirement", str(lock))
    _run(*pip, "--offline", str(wheel))
    _run(_UV, "pip", "check", "--quiet", "--python", python)
    return environment / "bin"


def _own_requirements(extra: str) -> Iterator[Requirement]:
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras[extra]):
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            for other in requirement.extras:
                yield from _own_requirements(other)
        else:
            yield requirement


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _run(*command: str) -> None:
    arguments: Sequence[str] = command
    done = subprocess.run(arguments, cwd=ROOT, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

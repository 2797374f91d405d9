"""The projects in examples/, in a copy of the repository.

examples = Examples(tmp_path)
run = examples.build("go")             the command that runs the program
execute(examples.directory("go"), "sh", "-ec", run)     its status, output and complaints
"""

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

from tests.support.tree import ROOT

COMMANDS: Final[dict[str, str]] = dict(
    re.findall(
        r"```sh\ncd examples/(\w+)\n(.*?)```",
        (ROOT / "examples" / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
)
"""The commands of the README by language. The last one runs the program, the others build it."""

TOOLS: Final = {
    "python": ("python3",),
    "go": ("go",),
    "java": ("javac", "mvn"),
    "node": ("node", "npm"),
    "browser": ("node", "npm"),
    "rust": ("cargo",),
    "grpcurl": ("go",),
}
"""The programs that a language needs, beside buf."""

LONGEST: Final = 480.0
"""The maximum time of a command in seconds. The first build fetches and compiles packages."""

COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
"""Maven writes them to pipes too."""

_GENERATED: Final = (
    *("*_pb2*", "__pycache__", ".venv", "bin"),
    *("gen", "target", "dist", "node_modules"),
)
"""Names that are generated or installed."""


def unusable(tool: str) -> str:
    """Return why a program cannot be used, or "" if it can.

    rustup's `cargo` is in the PATH also without a toolchain in HOME, but runs nothing then.
    """
    program = shutil.which(tool)
    if program is None:
        return f"{tool} is not installed"
    if tool != "cargo":
        return ""
    asked = subprocess.run(  # noqa: S603  (the language's own tool)
        (program, "--version"), check=False, capture_output=True, timeout=LONGEST
    )
    return f"{tool} does not run" if asked.returncode else ""


def path_with(*directories: Path) -> str:
    """Return a PATH that begins with `directories` and the directory of buf."""
    places = (*directories, Path(sys.executable).parent, os.environ.get("PATH", ""))
    return os.pathsep.join(map(str, places))


def execute(directory: Path, *command: str, **variables: str) -> tuple[int, str, str]:
    """Run a command, and kill it and its children if it takes longer than `LONGEST`.

    Args:
        directory: The working directory.
        command: A program and its arguments.
        variables: Changes of the environment. By default, buf is on the PATH, and crates are
            compiled once for all copies.

    Returns:
        The exit status, the standard output and the standard error.
    """
    usual = {"PATH": path_with(), "CARGO_TARGET_DIR": str(ROOT / "examples" / "rust" / "target")}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(  # noqa: S603  (the languages' own tools)
        command,
        cwd=directory,
        env={**inherited, **usual, **variables},
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


def build(directory: Path, *command: str, **variables: str) -> str:
    """Run a command, which must succeed, and return its output. `execute` has the arguments."""
    status, printed, complained = execute(directory, *command, **variables)
    assert status == 0, f"{' '.join(command)}: {printed}{complained}"
    return printed


def copy(root: Path, names: Iterable[str]) -> None:
    """Copy files and directories of the repository, without what was generated or installed."""
    ignored = shutil.ignore_patterns(*_GENERATED)
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, root / name)


def _lock_crates(directory: Path) -> None:
    """Write Cargo.lock: crates.lock with the address of the registry, which cargo itself knows."""
    build(directory, "cargo", "generate-lockfile", "--quiet")
    lock = directory / "Cargo.lock"
    [source, *_] = re.findall(r"(?m)^source = .*\n", lock.read_text(encoding="utf-8"))
    crates = (directory / "crates.lock").read_text(encoding="utf-8")
    lock.write_text(crates.replace("checksum = ", f"{source}checksum = "), encoding="utf-8")


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
            if fault := unusable(tool):
                if os.environ.get("CI"):
                    pytest.fail(fault)
                pytest.skip(fault)
        *building, run = COMMANDS[language].splitlines()
        if language not in self._built:
            if language == "rust":
                _lock_crates(self.directory(language))
            build(self.directory(language), "sh", "-ec", "\n".join(building))
            self._built.add(language)
        return run

    def plugins(self) -> str:
        """Return a PATH with the plugins of Go, Java and TypeScript."""
        for language in ("go", "java", "browser"):
            self.build(language)
        programs = self.root / "bin"
        build(self.directory("go"), "go", "install", "tool", GOBIN=str(programs))
        return path_with(
            programs,
            self.directory("java") / "target" / "plugins",
            self.directory("browser") / "node_modules" / ".bin",
        )

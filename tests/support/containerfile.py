"""Builds and runs an image without a container engine, in a bare folder tree.

    Containerfile -> stages -> a tree for each -> COPY copies, RUN runs in it -> the image

A tree has the folders of the machine's system (/usr, /etc, …) and, in /usr/local, an environment
with this Python and pip, in place of the base image. Everything else in it is the stage's own. A
command runs in a mount namespace of its own with the tree as its root. This needs root on Linux.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

NEEDED: Final = ("unshare", "chroot", "setpriv", "mount")
"""The commands that a tree needs."""

_SYSTEM: Final = ("usr", "etc", "opt", "dev", "proc")
_LINKS: Final = ("bin", "lib", "lib64", "sbin")
_TEMPORARY: Final = "tmp"
_PASSED: Final = re.compile(r"(PIP|SSL|REQUESTS|CURL)_\w+|\w+_proxy", re.IGNORECASE)
"""The variables for the package index, which an engine passes to a build too."""


@dataclass(kw_only=True, slots=True)
class Stage:
    """A stage of a Containerfile."""

    name: str
    root: Path
    local: Path
    """The folder that the tree has as /usr/local."""
    directory: str = "/"
    user: str = "0:0"
    variables: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)

    def shell(
        self, command: Sequence[str], *, is_read_only: bool, writable: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Return a command that runs another one in this tree.

        Args:
            command: The program and its arguments.
            is_read_only: Whether the tree is read-only, as in production, or a build.
            writable: The folders that are writable in spite of that.
        """
        root = str(self.root)
        steps = [f"mount --bind {root} {root}"]
        for name in _SYSTEM:
            (self.root / name).mkdir(exist_ok=True)
            steps.append(f"mount --rbind /{name} {root}/{name}")
        steps.append(f"mount --bind {self.local} {root}/usr/local")
        (self.root / sys.base_prefix.lstrip("/")).mkdir(parents=True, exist_ok=True)
        steps.append(f"mount --bind {sys.base_prefix} {root}{sys.base_prefix}")
        (self.root / _TEMPORARY).mkdir(exist_ok=True)
        steps.append(f"mount -t tmpfs -o mode=1777 tmpfs {root}/{_TEMPORARY}")
        for name in _LINKS:
            link = self.root / name
            if Path(f"/{name}").is_symlink() and not link.is_symlink():
                link.symlink_to(f"usr/{name}")
        if is_read_only:
            steps += [f"mount --bind {root}{place} {root}{place}" for place in writable]
            steps.append(f"mount -o remount,ro,bind {root}")
        user, _, group = self.user.partition(":")
        become = f"setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs"
        variables = shlex.join(["env", "-i", *(f"{k}={v}" for k, v in self.variables.items())])
        inner = f'cd {self.directory} && exec {become} {variables} "$@"'
        steps.append(f'exec chroot {root} /bin/sh -c {shlex.quote(inner)} sh "$@"')
        return ("unshare", "--mount", "sh", "-ec", "\n".join(steps), "sh", *command)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Containerfile: a keyword and the rest of its line."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, _, rest = line.strip().partition(" ")
            yield keyword, rest.strip()


def included(context: Path, ignore: str) -> frozenset[str]:
    """Return the files of a build context, by a `.dockerignore` whose first pattern is `*`.

    Args:
        context: The folder.
        ignore: Lines with a name to include after "!", or a folder to exclude after "**/".
    """
    patterns = [line for line in ignore.splitlines() if line and not line.startswith("#")]
    assert patterns[0] == "*"
    names = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    without = [pattern[3:] for pattern in patterns[1:] if pattern.startswith("**/")]
    assert len(names) + len(without) == len(patterns) - 1
    found: set[str] = set()
    for name in names:
        place = context / name
        files = (
            [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
        )
        assert files, f".dockerignore includes {name}, which does not exist"
        found.update(
            str(path.relative_to(context))
            for path in files
            if not any(fnmatch(part, other) for part in path.parts for other in without)
        )
    return frozenset(found)


def build(containerfile: Path, context: Path, directory: Path) -> Stage:
    """Carry out a Containerfile and return its last stage.

    Args:
        containerfile: The file.
        context: The folder from which it copies; its `.dockerignore` holds.
        directory: An empty folder for the trees.
    """
    files = included(context, (context / ".dockerignore").read_text())
    local = directory / "local"
    subprocess.run([sys.executable, "-m", "venv", str(local)], check=True)  # noqa: S603
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for keyword, rest in instructions(containerfile.read_text()):
        if keyword == "FROM":
            name = rest.partition(" AS ")[2] or "last"
            stage = stages[name] = Stage(name=name, root=directory / name, local=local)
            stage.root.mkdir(parents=True)
            stage.variables["PATH"] = "/usr/local/bin:/usr/bin:/bin"
            continue
        assert stage is not None
        _carry_out(stage, stages, keyword, rest, (context, files))
    assert stage is not None
    return stage


def _carry_out(
    stage: Stage,
    stages: Mapping[str, Stage],
    keyword: str,
    rest: str,
    context: tuple[Path, frozenset[str]],
) -> None:
    if keyword == "RUN":
        passed = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
        building = Stage(
            name=stage.name,
            root=stage.root,
            local=stage.local,
            directory=stage.directory,
            variables={**passed, **stage.variables, "HOME": f"/{_TEMPORARY}"},
        )
        command = building.shell(("/bin/sh", "-c", rest), is_read_only=False)
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        assert done.returncode == 0, f"RUN {rest}\n{done.stdout}{done.stderr}"
    elif keyword == "COPY":
        _copy(stage, stages, shlex.split(rest), *context)
    elif keyword == "ENV":
        stage.variables |= dict(word.partition("=")[::2] for word in shlex.split(rest))
    elif keyword == "WORKDIR":
        stage.directory = rest
        _place(stage, rest).mkdir(parents=True, exist_ok=True)
    elif keyword == "USER":
        stage.user = rest
    elif keyword == "CMD":
        stage.command = json.loads(rest)
    elif keyword == "HEALTHCHECK":
        stage.health_check = json.loads(rest.partition(" CMD ")[2])
    else:
        assert keyword in {"EXPOSE", "STOPSIGNAL"}, f"the tests do not know {keyword}"


def _place(stage: Stage, path: str) -> Path:
    return stage.root / os.path.join(stage.directory, path).lstrip("/")


def _copy(
    stage: Stage,
    stages: Mapping[str, Stage],
    words: Sequence[str],
    context: Path,
    files: frozenset[str],
) -> None:
    options = dict(word[2:].split("=") for word in words if word.startswith("--"))
    *sources, target = [word for word in words if not word.startswith("--")]
    for source in sources:
        if "from" in options:
            place = stages[options["from"]].root / source.lstrip("/")
            shutil.copytree(place, _place(stage, target), symlinks=True)
            if owner := options.get("chown"):
                os.chown(_place(stage, target), *map(int, owner.split(":")))
            continue
        copied = [file for file in files if file == source or file.startswith(f"{source}/")]
        assert copied, f"COPY {source}: the build context has no such file"
        for file in copied:
            inside = file.removeprefix(source).lstrip("/")
            to = _place(stage, target) / (inside or Path(source).name)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(context / file, to)

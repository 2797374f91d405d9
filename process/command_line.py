"""Command lines: names of programs, the version, and the nearest name to a mistyped word.

    chatcompletion-service --wrokers 2  ->  unknown argument '--wrokers'; did you mean '--workers'?

Commands use `CommandParser`, an argparse parser that suggests names. The servers have few
arguments, which `unknown` checks.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

HELP: Final = frozenset({"-h", "--help"})
VERSION: Final = "--version"

_DISTRIBUTION: Final = "chatcompletion"
_SCRIPTS: Final = f"{_DISTRIBUTION}-"
"""The beginning of the name of every console script."""


def program(module: str, path: str) -> str:
    """Return the name by which a person started a program.

    Args:
        module: The module that `python -m` runs.
        path: The path of the program, as in `sys.argv[0]`.
    """
    name = Path(path).name
    return name if name.startswith(_SCRIPTS) else f"python -m {module}"


def version() -> str:
    """Return the version of the installed distribution, or "unknown" for a bare source tree."""
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def version_line() -> str:
    """Return the output of `--version`."""
    return f"{_DISTRIBUTION} {version()}"


def show(text: str) -> None:
    """Write a text to standard output.

    If its reader has closed the pipe, as `head` does, discard the text.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)


def discard(stream: TextIO) -> None:
    """Discard unwritten output. Python would otherwise write it again at exit, and fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream.fileno())
    finally:
        os.close(null)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" with the nearest known word, or "" if none is near."""
    near = get_close_matches(word, [*known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def flag(variable: str) -> str:
    """Return the flag that a person could expect for a variable: CHAT_LISTEN is `--listen`."""
    return "--" + variable.removeprefix("CHAT_").lower().replace("_", "-")


def unknown(others: Sequence[str], known: Mapping[str, str], variables: Iterable[str]) -> str:
    """Return the error for the arguments that a server did not take.

    Args:
        others: These arguments, at least one.
        known: The arguments that the server has, and the value that each needs, or "".
        variables: The environment variables of its settings.
    """
    name = next((name for name in others if name not in known), others[0])
    if known.get(name):
        return f"the argument {name} needs {known[name]}"
    name = name.partition("=")[0]
    hint = suggestion(name, known)
    if not hint:
        flags = {flag(variable): variable for variable in variables}
        near = get_close_matches(name, flags, n=1)
        hint = f"; did you mean the variable {flags[near[0]]}?" if near else "."
    return (
        f"unknown argument {name!r}{hint} The settings are environment variables; "
        "--help lists the arguments and the variables."
    )


class CommandParser(argparse.ArgumentParser):
    """A parser with `--version` that answers an unknown word with the nearest known one."""

    otherwise: str = ""
    """The command that is meant if the first word is none; "" if there must be one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._flags: list[str] = []
        self._commands: Any = None
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})
        self.add_argument(
            VERSION, action="version", version=version_line(), help="print the version and exit"
        )

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an argument, as argparse does."""
        self._flags += [name for name in args if name.startswith("--")]
        return super().add_argument(*args, **kwargs)

    def add_subparsers(self, **kwargs: Any) -> Any:
        """Add commands, as argparse does."""
        self._commands = super().add_subparsers(**kwargs)
        return self._commands

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments, after a check for unknown words. argparse calls this for each level."""
        if self._means_otherwise(args):
            args = [self.otherwise, *args]
        self._check(args)
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unknown argument {rest[0]!r}")
        return found, rest

    def _means_otherwise(self, words: Sequence[str]) -> bool:
        if not self.otherwise or {*HELP, VERSION}.intersection(words[:1]):
            return False
        return not words or words[0] not in self._commands.choices

    def error(self, message: str) -> NoReturn:
        """Print a line with an error and the place of the help, and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}{'' if message[-1] in '.?' else '.'} See --help.\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a text, as argparse does, except that a closed pipe is no error."""
        if file is not None and file is sys.stdout:
            show(message)
        else:
            super()._print_message(message, file)

    def _check(self, words: Sequence[str]) -> None:
        for word in words:
            if word == "--":
                return
            if word.startswith("--"):
                name = word.partition("=")[0]
                if name not in self._flags and self._commands is None:
                    self.error(f"unknown argument {name!r}{suggestion(name, self._flags)}")
            elif self._commands is not None and not word.startswith("-"):
                if word not in self._commands.choices:
                    near = suggestion(word, self._commands.choices)
                    self.error(f"unknown command {word!r}{near}")
                return  # the words after a command are the command's

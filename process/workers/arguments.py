"""The part of a command line that is about workers.

    --workers N             takes precedence over the setting
    --worker NUMBER:SOCKET  a worker, as its supervisor starts it

The command line of a worker is its supervisor's, with `--worker` at the end.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WORKERS: Final = "--workers"
WORKER: Final = "--worker"
USAGE: Final = f"[{WORKERS} N]"
ARGUMENTS: Final[Mapping[str, str]] = {WORKERS: "a number of processes"}
"""The arguments for people, each with the value that it needs."""

_POSITION: Final = re.compile(r"([1-9][0-9]{0,3}):([0-9]{1,9})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """The position of a worker among the others."""

    number: int
    """From 1."""
    socket: int
    """The descriptor of its socket to the supervisor."""

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments that name this position."""
        return WORKER, f"{self.number}:{self.socket}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """A command line."""

    others: Sequence[str]
    """The arguments that are not about workers."""
    environment: Mapping[str, str]
    """The environment, with the number of workers that was asked for."""
    position: Position | None
    """None if this process is no worker."""


def parse(arguments: Sequence[str], environment: Mapping[str, str], *, variable: str) -> Arguments:
    """Parse the arguments about workers.

    Args:
        arguments: The command line, without the program.
        environment: The environment.
        variable: The setting for which `--workers` stands.
    """
    others: list[str] = []
    position: Position | None = None
    left = list(arguments)
    while left:
        argument = left.pop(0)
        name, equals, value = argument.partition("=")
        if name in {WORKERS, WORKER} and (equals or left):
            value = value if equals else left.pop(0)
            if name == WORKERS and value:
                environment = {**environment, variable: value}
                continue
            found = _POSITION.fullmatch(value)
            if name == WORKER and found:
                position = Position(number=int(found[1]), socket=int(found[2]))
                continue
        others.append(argument)
    return Arguments(others=others, environment=environment, position=position)

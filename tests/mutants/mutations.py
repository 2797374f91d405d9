"""The list of mutations: TOML files in this folder.

[[mutation]]
name = "admin-without-token"
file = "service/server.py"
text = "if not settings.admin_token:"                exactly once in the file
replacement = "if False:"
tests = ["tests/e2e/test_admin_listener.py"]         files, or tests of a file, for pytest
"""

import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One change of one file."""

    name: str
    file: str
    """Its path in the tree."""
    text: str
    replacement: str
    tests: tuple[str, ...]

    def applied(self, source: str) -> str:
        """Return the source of the file with the mutation.

        Raises:
            ValueError: The text is not in it exactly once.
        """
        count = source.count(self.text)
        if count != 1:
            raise ValueError(f"{self.name}: the text stands {count} times in {self.file}")
        return source.replace(self.text, self.replacement)


def load(directory: Path = HERE) -> tuple[Mutation, ...]:
    """Return all mutations, in the order of the files and of their entries.

    Raises:
        ValueError: An entry lacks a member or has an unknown one, or a name occurs twice.
    """
    mutations = tuple(_read(directory))
    names = [mutation.name for mutation in mutations]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"mutations of one name: {', '.join(sorted(twice))}")
    return mutations


def _read(directory: Path) -> Iterator[Mutation]:
    for file in sorted(directory.glob("*.toml")):
        for entry in tomllib.loads(file.read_text())["mutation"]:
            try:
                yield Mutation(**{**entry, "tests": tuple(entry["tests"])})
            except (KeyError, TypeError) as error:
                raise ValueError(f"{file.name}: {entry.get('name')}: {error}") from error


def sample(mutations: Sequence[Mutation], size: int, seed: str) -> tuple[Mutation, ...]:
    """Return a sample of the mutations, the same for the same seed, in their order."""
    picked = random.Random(seed).sample(range(len(mutations)), min(size, len(mutations)))  # noqa: S311
    return tuple(mutations[number] for number in sorted(picked))

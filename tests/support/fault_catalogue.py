"""The failure catalogue: each fault, what it does, and the tests that cause it.

tests/faults/catalogue.toml -> load -> FAULT, FAULT, …
                                       is_test_of(a test's id)
                                       tables -> docs/faults.md
"""

import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).parents[1] / "faults" / "catalogue.toml"
SECTIONS: Final = {
    "A": "Upstream",
    "B": "Callers",
    "C": "Processes",
    "D": "Stores",
    "E": "Money and limits",
    "F": "TLS",
    "G": "Receivers of events",
    "P": "Weaknesses of other gateways",
}
"""The headings of the sections."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A row of the catalogue."""

    section: str
    name: str
    result: str
    """What callers, the ledger, the upstream or the process show."""
    tests: tuple[str, ...]
    """The beginnings of the ids of its tests, relative to `tests/`."""
    slow: bool = False
    """Whether its tests take longer than a few seconds."""

    def is_test_of(self, test: str) -> bool:
        """Return whether a test causes this fault.

        Args:
            test: The id of the test, with its parameters.
        """
        begins = tuple(f"tests/{each}" for each in self.tests)
        return test in begins or test.startswith(
            tuple(each if "[" in each else f"{each}[" for each in begins)
        )

    @property
    def functions(self) -> frozenset[str]:
        """The ids of its tests, without parameters."""
        return frozenset(f"tests/{each.partition('[')[0]}" for each in self.tests)


def load() -> tuple[Fault, ...]:
    """Return all faults, in the order of the catalogue."""
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return tuple(
        Fault(
            section=section,
            name=row["fault"],
            result=row["result"],
            tests=tuple(row["tests"]),
            slow=row.get("slow", False),
        )
        for section in SECTIONS
        for row in found[section]
    )


def sample(faults: Sequence[Fault], count: int, seed: str) -> tuple[Fault, ...]:
    """Return a number of faults that a seed selects, in the order of the catalogue.

    None of them is slow.
    """

    def place(fault: Fault) -> bytes:
        return hashlib.sha256(f"{seed} {fault.section} {fault.name}".encode()).digest()

    chosen = sorted((fault for fault in faults if not fault.slow), key=place)[:count]
    return tuple(fault for fault in faults if fault in chosen)


def tables(faults: Sequence[Fault]) -> Iterator[tuple[str, str]]:
    """Yield each section with its table, as the page on faults has them."""
    for section, heading in SECTIONS.items():
        lines = ["| Fault | Result | Tests |", "|---|---|---|"]
        for fault in faults:
            if fault.section == section:
                tests = ", ".join(f"`{name}`" for name in _files(fault))
                lines.append(f"| {fault.name} | {fault.result} | {tests} |")
        yield heading, "\n".join(lines)


def _files(fault: Fault) -> Sequence[str]:
    files = (test.partition("::")[0] for test in fault.tests)
    return tuple(dict.fromkeys(file.removesuffix(".py") for file in files))

"""The result of a suite: which cases passed, which failed, and which failures are known.

    case names -> judge(...) -> Outcome -> a row of the table

`known.toml` lists the known failures with their reasons. A case there that passes is a failure of
the run, so that the list stays true.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

_KNOWN: Final = Path(__file__).with_name("known.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Failures that are expected, for one reason."""

    suite: str
    reason: str
    cases: Sequence[str]
    """The names of cases, and patterns for several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a suite found."""

    suite: str
    passed: int
    failed: Sequence[str]
    """The unexpected failures: the name of the case, and what was found."""
    known: int
    seconds: float = 0.0


def known_failures() -> Sequence[Known]:
    """Return the known failures of every suite."""
    return [Known(**row) for row in tomllib.loads(_KNOWN.read_text())["known"]]


def judge(
    suite: str,
    passed: Iterable[str],
    failed: Mapping[str, str],
    known: Sequence[Known],
) -> Outcome:
    """Return the outcome of a suite.

    Args:
        suite: The name of the suite.
        passed: The names of the cases that passed.
        failed: The names of the cases that failed, each with what was found.
        known: The known failures of every suite.
    """
    patterns = {case for row in known if row.suite == suite for case in row.cases}
    expected = {
        name: pattern for name in failed for pattern in patterns if fnmatchcase(name, pattern)
    }
    unexpected = [f"{name}: {found}" for name, found in failed.items() if name not in expected]
    unexpected += [
        f"{case}: known.toml lists it, but it passed" for case in patterns - {*expected.values()}
    ]
    return Outcome(suite=suite, passed=len(list(passed)), failed=unexpected, known=len(expected))

"""The page on conformance has the suites, their versions and the known failures of the code."""

import re
import tomllib
from collections.abc import Iterator
from typing import Final

from tests.support.tree import ROOT

HERE: Final = ROOT / "tests" / "conformance"
PAGE: Final = (ROOT / "docs" / "conformance.md").read_text()
PINS: Final = "\n".join(
    path.read_text()
    for path in (*HERE.glob("*/go.mod"), *HERE.glob("*.lock"), ROOT / "requirements-dev.lock")
)
MODULES: Final = {
    "connectconformance": "connectrpc.com/conformance",
    "h2spec": "github.com/summerwind/h2spec",
    "grpcurl": "github.com/fullstorydev/grpcurl",
    "grpc-health-probe": "github.com/grpc-ecosystem/grpc-health-probe",
    "ghz": "github.com/bojand/ghz",
    "gunicorn's requests": "gunicorn",
}
"""The module or package of each suite that has another name."""


def _table(heading: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the table with a heading."""
    _, _, rest = PAGE.partition(f"| {heading} ")
    for line in rest.split("\n\n")[0].splitlines()[2:]:
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_known_failures_are_those_of_the_list() -> None:
    known = tomllib.loads((HERE / "known.toml").read_text())["known"]
    told = list(_table("Suite | Cases"))
    assert told == [[row["suite"], str(len(row["cases"])), row["reason"]] for row in known]


def test_each_suite_has_the_version_that_is_pinned() -> None:
    for suite, version, *_ in _table("Suite | Version"):
        name = suite.partition(",")[0]
        pin = re.compile(
            rf"^\s*{re.escape(MODULES.get(name, name))}(?:==| v){re.escape(version)}", re.M
        )
        assert pin.search(PINS), f"{name} {version}"

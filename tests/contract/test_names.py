"""No file name, class or type alias has two meanings.

Different programs can use the same name for the same thing. The tables describe these things.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.contract.test_imports import MODULES

FILES: Final = {
    "__init__": "a package",
    "__main__": "a program that runs with `python -m`",
    "config": "the settings of a program",
    "connection": "one HTTP connection and its exchanges, at each of its ends",
    "exchange": "an HTTP request and its response, in each HTTP server",
    "probes": "health, as each deployable reports it",
    "scripts": "the console scripts of a package",
    "server": "a program's parts, from start to drain",
    "telemetry": "the metrics and log lines of a deployable",
}
"""Names that several files have, and the contents of these files."""

TYPES: Final = {
    "Connection": "one HTTP connection and its exchanges, at each of its ends",
    "Exchange": "an HTTP request and its response, in each HTTP server",
    "Headers": "names and values of headers, as each side writes them",
    "Settings": "the settings of a deployable",
    "Telemetry": "the metrics and log lines of a deployable",
}
"""Names that several public classes or type aliases have, and their meaning."""


def repeated(named: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the names that several modules have, with these modules.

    Args:
        named: The names of each module.
    """
    modules: dict[str, list[str]] = defaultdict(list)
    for module, names in named.items():
        for name in names:
            modules[name].append(module)
    return {name: found for name, found in modules.items() if len(found) > 1}


def types_of(path: Path) -> Iterable[str]:
    """Yield the public classes and type aliases that the top level of a file defines."""
    for node in ast.parse(path.read_text()).body:
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.Assign(targets=[ast.Name(id=name)])
                | ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias"))
            ):
                # The names of constants are in capitals, those of functions in lower case.
                if name[0].isupper() and not name.isupper():
                    yield name


FILES_OF: Final = {module: [path.stem] for module, path in MODULES.items()}
TYPES_OF: Final = {module: [*types_of(path)] for module, path in MODULES.items()}


@pytest.mark.parametrize(
    ("named", "allowed"), [(FILES_OF, FILES), (TYPES_OF, TYPES)], ids=["files", "types"]
)
def test_a_name_that_is_repeated_means_one_thing(
    named: Mapping[str, Sequence[str]], allowed: Mapping[str, str]
) -> None:
    found = repeated(named)

    assert {name: modules for name, modules in found.items() if name not in allowed} == {}
    assert set(found) == set(allowed)


@pytest.mark.parametrize("package", ["chat", "chatcompletion", "process", "restbridge", "service"])
@pytest.mark.parametrize("named", [FILES_OF, TYPES_OF], ids=["files", "types"])
def test_no_package_repeats_a_name(named: Mapping[str, Sequence[str]], package: str) -> None:
    inside = {
        module: names
        for module, names in named.items()
        # The simulator is a program of its own.
        if module.startswith(f"{package}.") and not module.startswith("service.simulator.")
    }

    assert repeated(inside).keys() <= {"__init__"}

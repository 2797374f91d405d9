"""The tables of the documents say what the code says.

    docs/configuration.md  <!-- settings -->  one row per environment variable, of both deployables
    docs/errors.md         <!-- errors -->    one row per reason
    docs/architecture.md   <!-- map -->       a fenced block: each line begins with a path, or
                                              several separated by commas, and two spaces; a line
                                              that is indented lies in the directory above it

A failure prints the table as it should be.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import restbridge.config
import service.config
from chatcompletion.process.settings import rows
from chatcompletion.reasons import RULES

ROOT: Final = Path(__file__).parents[2]


PLACES: Final = {"settings": "configuration", "errors": "errors", "map": "architecture"}
"""The document of each table."""


def section(name: str) -> str:
    """Return the text between a pair of marks."""
    document = ROOT / "docs" / f"{PLACES[name]}.md"
    text = document.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    assert text.count(begin) == text.count(end) == 1, f"{document} has no single pair of {begin}"
    return text.partition(begin)[2].partition(end)[0].strip()


def table(*lines: tuple[str, ...]) -> str:
    head, *body = lines
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        + ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in body]
    )


def settings() -> str:
    found = {
        row.name: (f"`{row.name}`", f"`{row.default}`" if row.default else "none", row.meaning)
        for kind in (service.config.Settings, restbridge.config.Settings)
        for row in rows(kind)
    }
    return table(("Variable", "Default", "Meaning"), *found.values())


def errors() -> str:
    return table(
        ("Reason", "HTTP", "gRPC", "type / code", "Retry"),
        *(
            (
                f"`{reason}`",
                str(rule.http_status),
                f"`{rule.grpc_code.name}`",
                f"{rule.type} / {rule.code}",
                "yes" if rule.retryable else "no",
            )
            for reason, rule in RULES.items()
        ),
    )


@pytest.mark.parametrize(("name", "expected"), [("settings", settings()), ("errors", errors())])
def test_a_table_is_what_the_code_says(name: str, expected: str) -> None:
    if section(name) != expected:
        pytest.fail(f"The table between the marks {name} must be:\n\n{expected}\n", pytrace=False)


def test_a_setting_of_both_sides_is_the_same_setting() -> None:
    ours = {row.name: row for row in rows(service.config.Settings)}
    theirs = {row.name: row for row in rows(restbridge.config.Settings)}

    for name in ours.keys() & theirs.keys():
        assert ours[name] == theirs[name]


def mapped() -> Iterator[str]:
    """Yield the paths of the map."""
    first, *lines, last = section("map").splitlines() or ["", ""]
    assert (first[:3], last) == ("```", "```"), "The map is one fenced block."
    above: list[tuple[int, str]] = []
    for line in filter(str.strip, lines):
        depth = len(line) - len(line.lstrip())
        above = [(other, directory) for other, directory in above if other < depth]
        place = above[-1][1] if above else ""
        names = line.strip().partition("  ")[0].split(", ")
        yield from (place + name for name in names)
        if names[0].endswith("/"):
            above.append((depth, place + names[0]))


def test_all_that_the_map_names_is_there() -> None:
    assert [path for path in mapped() if not any(ROOT.glob(path))] == []


def test_the_map_names_every_module_of_the_deployables() -> None:
    modules = {
        f"{package}/{path.name}"
        for package in ("service", "restbridge")
        for path in (ROOT / package).glob("*.py")
        if path.name != "__init__.py"
    }
    packages = {
        f"{path.parent.relative_to(ROOT)}/"
        for package in ("service", "restbridge")
        for path in (ROOT / package).glob("*/__init__.py")
    }

    assert sorted((modules | packages) - set(mapped())) == []

"""The tables of the documents match the code.

    docs/configuration.md  <!-- settings -->       one row per environment variable
    docs/errors.md         <!-- errors -->         one row per reason
                           <!-- bridge errors -->  one row per failure that only the bridge finds
    docs/operations.md     <!-- metrics -->        one row per metric, in the order of the code
                           <!-- causes -->         one row per cause of a failure of the upstream
    docs/models.md         <!-- dialect -->        one row per member of a dialect
    docs/architecture.md   <!-- map -->            every file
    README.md              <!-- map -->            the folders

A map is a fenced block. Each line begins with a path, or with several separated by commas, and two
spaces; an indented line lies in the folder above it.

A failure prints the expected table.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry

import process.metrics
import process.workers.telemetry
import restbridge.config
import restbridge.telemetry
import service.config
import service.telemetry
from chatcompletion.reasons import RULES
from process.settings import rows
from restbridge.error_responses import BRIDGE
from service.dialect_document import ENTRIES
from service.upstream_report import CAUSES

ROOT: Final = Path(__file__).parents[2]
MAPS: Final = ("docs/architecture.md", "README.md")
"""The documents with a map. The first map names every file."""


def section(document: str, name: str) -> str:
    """Return the text between a pair of marks of a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
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


def bridge_errors() -> str:
    return table(
        ("Reason", "HTTP", "type / code"),
        *(
            (f"`{reason}`", str(rule.status), f"{rule.type} / {rule.code}")
            for reason, rule in BRIDGE.items()
        ),
    )


def causes() -> str:
    lines = ((f"`{cause}`", meaning) for cause, meaning in CAUSES.items())
    return table(("Cause", "What happened"), *lines)


def dialect() -> str:
    lines = ((f"`{name}`", entry.meaning, entry.default) for name, entry in ENTRIES.items())
    return table(("Member", "Meaning", "Default"), *lines)


@pytest.mark.parametrize(
    ("document", "name", "expected"),
    [
        ("docs/configuration.md", "settings", settings()),
        ("docs/errors.md", "errors", errors()),
        ("docs/errors.md", "bridge errors", bridge_errors()),
        ("docs/operations.md", "causes", causes()),
        ("docs/models.md", "dialect", dialect()),
    ],
)
def test_a_table_is_what_the_code_says(document: str, name: str, expected: str) -> None:
    if section(document, name) != expected:
        pytest.fail(f"The table between the marks {name} must be:\n\n{expected}\n", pytrace=False)


def test_every_metric_has_its_row() -> None:
    described = CollectorRegistry()
    process.metrics.describe(described)
    registries = (
        service.telemetry.Telemetry().registry,
        restbridge.telemetry.Telemetry().registry,
        described,
        process.workers.telemetry.Telemetry().registry(),
    )
    metrics = [
        metric.name + ("_total" if metric.type == "counter" else "")
        for registry in registries
        for metric in registry.collect()
        if not metric.name.startswith("process_")
    ]
    head, _, *lines = section("docs/operations.md", "metrics").splitlines()

    assert head == "| Metric | Meaning |"
    assert [line.split("`")[1] for line in lines] == metrics


def test_a_setting_of_both_sides_is_the_same_setting() -> None:
    ours = {row.name: row for row in rows(service.config.Settings)}
    theirs = {row.name: row for row in rows(restbridge.config.Settings)}

    for name in ours.keys() & theirs.keys():
        assert ours[name] == theirs[name]


def mapped(document: str) -> Iterator[str]:
    """Yield the paths of the map of a document."""
    first, *lines, last = section(document, "map").splitlines() or ["", ""]
    assert (first[:3], last) == ("```", "```"), "The map is one fenced block."
    above: list[tuple[int, str]] = []
    for line in filter(str.strip, lines):
        depth = len(line) - len(line.lstrip())
        above = [(other, folder) for other, folder in above if other < depth]
        place = above[-1][1] if above else ""
        names = line.strip().partition("  ")[0].split(", ")
        yield from (place + name for name in names)
        if names[0].endswith("/"):
            above.append((depth, place + names[0]))


def unmapped(paths: Sequence[str]) -> Iterator[str]:
    """Yield the modules and packages in the folders whose files a map lists."""
    for folder in {path.rstrip("/").rpartition("/")[0] for path in paths} - {"", "protos"}:
        for file in (ROOT / folder).glob("*.py"):
            if file.name != "__init__.py" and not file.stem.endswith(("_pb2", "_pb2_grpc")):
                yield f"{folder}/{file.name}"
        for file in (ROOT / folder).glob("*/__init__.py"):
            yield f"{folder}/{file.parent.name}/"


@pytest.mark.parametrize("document", MAPS)
def test_all_that_a_map_names_exists(document: str) -> None:
    paths = list(mapped(document))

    assert [path for path in paths if not any(ROOT.glob(path))] == []
    assert len(paths) == len(set(paths))


def test_a_map_that_names_a_file_of_a_folder_names_them_all() -> None:
    paths = list(mapped(MAPS[0]))

    assert {"service/server.py", "restbridge/server.py"} <= set(paths)
    assert sorted(set(unmapped(paths)) - set(paths)) == []

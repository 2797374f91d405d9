import ast
from pathlib import Path

import service.simulator
from service.simulator.faults import (
    ELSEWHERE,
    FAULTS,
    connections,
    framing,
    streams,
    usages,
    whole_answers,
)

CATALOGUE = (
    "refuses",
    "black-holes",
    "name does not resolve",
    "pool exhausted",
    "hangs before headers",
    "drips headers",
    "hangs mid-stream",
    "resets mid-stream",
    "cuts a chunked body",
    "ends without [DONE]",
    "ends without a finish_reason",
    "ends without [DONE] or a finish_reason",
    "malformed JSON event",
    "event over 1 MiB",
    "line over 1 MiB",
    "200 with HTML",
    "one-byte chunks",
    "splits inside UTF-8",
    "splits inside data:",
    "U+2028 in content",
    "CR-only line ends",
    "CRLF line ends",
    "comments",
    "multi-line data",
    "byte-order mark",
    "500",
    "502",
    "503",
    "504",
    "429 with Retry-After",
    "503 with Retry-After",
    "401 for our key",
    "402 for our account",
    "403 for our key",
    "400",
    "404",
    "422",
    "gzip bomb",
    "redirect to elsewhere",
    "100 MB error body",
    "error event inside the stream",
    "usage missing",
    "usage twice",
    "usage negative",
    "usage huge",
    "unary: truncated body",
    "unary: no JSON",
    "unary: empty",
    "unary: JSON array",
    "unary: 64 MB body",
    "lone surrogates",
    "vendor members",
    "drips the body",
    "cuts a tool call",
)
"""The failure catalogue of upstreams."""


def test_every_item_of_the_catalogue_is_covered_or_made_elsewhere() -> None:
    covered = {fault.covers for fault in FAULTS.values()}

    assert set(CATALOGUE) - covered == set(ELSEWHERE)


def test_every_fault_has_a_name_of_its_own() -> None:
    tables = (connections, framing, streams, usages, whole_answers)

    assert sum(len(table.FAULTS) for table in tables) == len(FAULTS)
    for fault in FAULTS.values():
        assert not {",", "=", " "} & set(fault.name)


def test_the_simulator_imports_nothing_of_this_project_but_itself() -> None:
    ours = {"chatcompletion", "restbridge", "tests"}
    for path in Path(service.simulator.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                assert name.split(".")[0] not in ours, path
                assert not name.startswith("service.") or name.startswith("service.simulator")

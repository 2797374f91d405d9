"""The page on faults, the catalogue and the tests name the same faults."""

import ast
from functools import cache
from typing import Final

from tests.support.fault_catalogue import FILE, load, sample, tables
from tests.support.tree import ROOT

PAGE: Final = ROOT / "docs" / "faults.md"
FAULTS: Final = load()
NO_FAULTS: Final = {
    "test_closed_pipes.py": "the output of programs",
    "test_dispatched_failures.py": "how a failure travels",
    "test_draining.py": "calls that meet a listener while it closes",
    "test_identities.py": "keys that are bound to client certificates",
    "test_pipeline.py": "the pipeline mode of libpq",
    "test_reloading.py": "the models file, read again",
    "test_settlements_kept.py": "the journal of settlements",
    "test_shared_ports.py": "ports",
    "test_simulator.py": "the simulator itself",
    "test_simulator_faults.py": "the simulator's faults themselves",
    "test_store_connections.py": "the pool of a store",
    "test_store_migrations.py": "the schema",
    "test_store_mixes.py": "batches",
    "test_store_pruning.py": "old holds",
    "test_exporting.py": "traces",
    "test_unix_listeners.py": "listeners on socket files",
    "transport/test_leaving.py": "the transport alone",
    "transport/test_requests.py": "the transport alone",
    "transport/test_responses.py": "the transport alone",
}
"""The test files of the folder in which no fault of the catalogue occurs, and their subject."""


def test_the_page_has_the_table_of_the_catalogue() -> None:
    told = "\n\n".join(f"### {heading}\n\n{table}" for heading, table in tables(FAULTS))
    page = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- faults -->", "<!-- /faults -->"
    assert page.count(begin) == page.count(end) == 1
    assert page.partition(begin)[2].partition(end)[0].strip() == told


def test_a_fault_has_one_name() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names))


@cache
def _functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, functions))


def test_every_fault_has_tests_and_they_exist() -> None:
    missing = [
        function
        for fault in FAULTS
        for function in fault.functions
        if function.partition("::")[2] not in _functions(function.partition("::")[0])
    ]
    assert missing == []
    assert all(fault.tests for fault in FAULTS)


def test_every_test_file_of_faults_has_a_row() -> None:
    folder = FILE.parent
    there = {str(path.relative_to(folder)) for path in folder.rglob("test_*.py")}
    named = {test.partition("::")[0] for fault in FAULTS for test in fault.tests}
    unnamed = there - {name.removeprefix("faults/") for name in named}
    assert unnamed <= NO_FAULTS.keys(), "add rows to tests/faults/catalogue.toml"


def test_a_test_is_of_the_faults_whose_beginning_it_has() -> None:
    (fault,) = (each for each in FAULTS if each.name == "Answers 503")
    test = f"tests/{fault.tests[0]}"
    assert fault.is_test_of(test)
    assert fault.is_test_of(f"{test}[True]")
    assert not fault.is_test_of(f"{test}_and_more[True]")


def test_a_sample_depends_on_its_seed_alone() -> None:
    chosen = sample(FAULTS, 6, "a")
    assert len(chosen) == 6
    assert chosen == sample(FAULTS, 6, "a")
    assert chosen != sample(FAULTS, 6, "b")
    assert not any(fault.slow for fault in chosen)

"""Runs the machine: `python -m tests.contract.accounts_machine --steps 200000`.

In memory, on a SQLite file, and on PostgreSQL if its programs are installed. `--on` selects some.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from service.ledger.migrations import migrate
from service.ledger.store import Store
from tests.contract.accounts_machine import machine
from tests.contract.accounts_machine.stored_tables import StoredTables
from tests.contract.accounts_machine.tables import Tables
from tests.support.postgres import binaries, running

ENGINES = ("memory", "sqlite", "postgresql")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(name: str, steps: int, tables: Callable[[], Tables]) -> None:
    machine.AccountsMachine.tables = staticmethod(tables)
    began = time.monotonic()
    machine.run(steps)
    seen = machine.AccountsMachine.seen
    _tell(f"{name}: {seen.total()} operations in {time.monotonic() - began:.0f} s")
    _tell("  " + ", ".join(f"{kind} {count}" for kind, count in sorted(seen.items())))


def _run_on(url: str, name: str, steps: int) -> None:
    store = Store(url)
    migrate(store)
    try:
        _run(name, steps, lambda: StoredTables(store))
    finally:
        store.close()


def main() -> None:
    """Run the machine on the engines that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.accounts_machine")
    parser.add_argument("--steps", type=int, default=200_000, help="operations on each engine")
    parser.add_argument("--on", nargs="+", choices=ENGINES, default=ENGINES, help="the engines")
    asked = parser.parse_args()
    if "memory" in asked.on:
        _run("memory", asked.steps, Tables)
    if "sqlite" in asked.on:
        with tempfile.TemporaryDirectory() as directory:
            _run_on(f"sqlite:///{Path(directory) / 'accounts.db'}", "sqlite", asked.steps)
    if "postgresql" in asked.on:
        if binaries() is None:
            _tell("postgresql: its binaries are not here")
            return
        with running() as server:
            _run_on(server.url(server.database()), "postgresql", asked.steps)


if __name__ == "__main__":
    main()

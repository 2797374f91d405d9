"""Opens the store for commands, and runs the commands on a whole store: `ledger verify`, `migrate`.

open_store(url) -> COMMANDS["ledger verify"](store, arguments) -> Answer
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from service.accounts.terminal import Answer, CommandError, table
from service.accounts.verification import differences
from service.ledger.migrations import HEAD, migrate
from service.ledger.store import Store, StoreError

Command = Callable[[Store, argparse.Namespace], Answer]


@contextmanager
def open_store(url: str, *, creates: bool) -> Iterator[Store]:
    """Open a store and migrate its schema.

    Args:
        url: The URL of the store.
        creates: Whether to create a missing SQLite file. Most commands do not, so that a mistyped
            name does not look like an empty store.

    Raises:
        CommandError: There is no such store, or it cannot be used.
    """
    try:
        store = Store(url)
    except ValueError as error:
        raise CommandError(f"CHAT_DATABASE_URL: {error}") from error
    try:
        is_file = store.engine.dialect.name == "sqlite"
        if is_file and not creates and not Path(store.name).exists():
            raise CommandError(f"CHAT_DATABASE_URL: the file {store.name} does not exist")
        migrate(store)
        yield store
    except StoreError as error:
        raise CommandError(f"CHAT_DATABASE_URL: {error}") from error
    finally:
        store.close()


def _verify_ledger(store: Store, _: argparse.Namespace) -> Answer:
    found = [asdict(difference) for difference in differences(store)]
    text = "OK: all balances match the ledger and the holds."
    if found:
        rows = [[str(value) for value in difference.values()] for difference in found]
        text = table([*found[0]], rows, numbers=("stored", "recomputed"))
    return Answer(document={"differences": found}, text=text, is_failure=bool(found))


def _migrate(store: Store, _: argparse.Namespace) -> Answer:
    return Answer(document={"schema": HEAD}, text=f"The schema of {store.name} is {HEAD}.")


COMMANDS: Final[Mapping[str, Command]] = {"ledger verify": _verify_ledger, "migrate": _migrate}

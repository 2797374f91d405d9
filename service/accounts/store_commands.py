"""Opens the store for commands, and runs those on a whole store: verify, migrate, back up.

open_store(url) -> COMMANDS["ledger verify"](store, arguments) -> Answer
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import join
from typing import Final

from service.accounts.backup import back_up
from service.accounts.terminal import Answer, CommandError, Streamed, table
from service.accounts.verification import differences
from service.ledger.migrations import HEAD, migrate
from service.ledger.store import Store, StoreError

Command = Callable[[Store, argparse.Namespace], Answer | Streamed]


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


def _back_up(store: Store, asked: argparse.Namespace) -> Answer:
    if store.engine.dialect.name == "postgresql":
        url = store.engine.url.set(drivername="postgresql", password=None)
        address = url.difference_update_query(["password", "target_session_attrs"])
        command = ("pg_dump", "--format=custom", f"--file={asked.file}", str(address))
        raise CommandError(f"only SQLite files are copied; for PostgreSQL, run: {join(command)}")
    found = back_up(store, Path(asked.file), journal=asked.journal_directory)
    text = (
        f"Backed up {store.name} to {asked.file}: {found.accounts} accounts, {found.entries} "
        f"ledger entries, {found.from_journal} charges from the journal."
    )
    return Answer(document=asdict(found), text=text)


COMMANDS: Final[Mapping[str, Command]] = {
    "ledger verify": _verify_ledger,
    "migrate": _migrate,
    "backup": _back_up,
}

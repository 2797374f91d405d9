"""Opens or creates the store for commands, and runs those on a whole store.

open_store(url) -> COMMANDS["ledger verify"](store, arguments) -> Answer
"""

import argparse
import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from shlex import join
from typing import Final

from service.accounts.backup import back_up
from service.accounts.terminal import Answer, CommandError, Streamed, table
from service.accounts.verification import differences
from service.ledger.migrations import HEAD, migrate
from service.ledger.store import Store, StoreError

Command = Callable[[Store, argparse.Namespace], Answer | Streamed]

_MAGIC: Final = b"SQLite format 3\0"
"""The first bytes of a SQLite file (sqlite.org/fileformat.html)."""
_MOST_FILES: Final = 1000


class Creation(enum.Enum):
    """What a command does if the SQLite file of the store is missing."""

    NEVER = "it fails, so that a mistyped name does not look like an empty store"
    UNNAMED = "it fails, because no setting names the file"
    FIRST = "it creates the file, unless another SQLite file is in its directory"
    ALWAYS = "it creates the file"


@contextmanager
def open_store(
    url: str,
    *,
    creation: Creation = Creation.NEVER,
    thresholds: tuple[int, ...] | None = None,
) -> Iterator[Store]:
    """Open a store and migrate its schema.

    Args:
        url: The URL of the store.
        creation: What to do if its SQLite file is missing.
        thresholds: The percentages of credit that are reported as events; None for no events.

    Raises:
        CommandError: There is no such store, or it cannot be used.
    """
    try:
        store = Store(url, thresholds=thresholds)
    except ValueError as error:
        raise CommandError(f"CHAT_DATABASE_URL: {error}") from error
    try:
        is_file = store.engine.dialect.name == "sqlite"
        if is_file and not Path(store.name).exists():
            _check_creation(Path(store.name).absolute(), creation)
        migrate(store)
        yield store
    except StoreError as error:
        raise CommandError(f"CHAT_DATABASE_URL: {error}") from error
    finally:
        store.close()


def _check_creation(file: Path, creation: Creation) -> None:
    """Reject the creation of a SQLite file that can be an accident."""
    if creation is Creation.ALWAYS:
        return
    missing = f"CHAT_DATABASE_URL: the file {file} does not exist"
    if creation is Creation.NEVER:
        raise CommandError(missing)
    if creation is Creation.UNNAMED:
        raise CommandError(
            f"CHAT_DATABASE_URL is not set, and {file} does not exist. Set CHAT_DATABASE_URL to "
            "the store of the service; to create one here, add --new-store"
        )
    others = sorted(filter(_is_sqlite, _beside(file)))
    if others:
        raise CommandError(
            f"{missing}, but {others[0]} does. To use that store, set "
            f"CHAT_DATABASE_URL=sqlite:///{others[0]}; to create another, add --new-store"
        )


def _beside(file: Path) -> list[Path]:
    """Return up to a thousand files in the directory of a file."""
    try:
        return [path for path in islice(file.parent.iterdir(), _MOST_FILES) if path.is_file()]
    except OSError:
        return []


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as opened:
            return opened.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def place(store: Store) -> str:
    """Return the absolute path of a SQLite store, or the address of another one."""
    is_file = store.engine.dialect.name == "sqlite"
    return str(Path(store.name).absolute()) if is_file else store.name


def _verify_ledger(store: Store, _: argparse.Namespace) -> Answer:
    found = [asdict(difference) for difference in differences(store)]
    text = "OK: all balances match the ledger and the holds."
    if found:
        rows = [[str(value) for value in difference.values()] for difference in found]
        text = table([*found[0]], rows, numbers=("stored", "recomputed"))
    return Answer(document={"differences": found}, text=text, is_failure=bool(found))


def _migrate(store: Store, _: argparse.Namespace) -> Answer:
    return Answer(document={"schema": HEAD}, text=f"The schema of {place(store)} is {HEAD}.")


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

"""`python -m service COMMAND`: accounts, keys, credit and the ledger, without a server.

    accounts create ACCOUNT [--credit 25]       accounts list           accounts show ACCOUNT
    accounts budget ACCOUNT [--month 10]        keys budget ACCOUNT NAME [--day 1]
    accounts suspend ACCOUNT                    accounts resume ACCOUNT accounts delete ACCOUNT
    keys rotate ACCOUNT NAME [--grace 1d]       keys find SECRET
    keys suspend ACCOUNT NAME                   keys resume ACCOUNT NAME
    keys create ACCOUNT --name NAME [limits]    keys list ACCOUNT       keys revoke ACCOUNT NAME
    keys update ACCOUNT NAME [limits]           migrate
    usage show [ACCOUNT]                        usage export --month 2026-11
    credit add ACCOUNT CREDITS [--id ID]        credit deduct ACCOUNT CREDITS [--id ID]
    ledger show ACCOUNT                         ledger verify           audit [ACCOUNT]
    events list [--dead]                        events retry ID         events drop ID
    backup FILE                                 models measure [NAME …]

    arguments -> argparse.Namespace -> `accounts.commands` on CHAT_DATABASE_URL -> a table or JSON

The exit status is 0 on success, 1 if the command failed, and 2 if the arguments are wrong. `ledger
verify` exits with 1 if a balance differs and with 3 if it failed. An error is one line on standard
error.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from process import found_values, interrupts
from process.command_line import discard, show
from process.settings import database_url, rows
from service.cli_arguments import PROGRAM, parser
from service.config import Settings, credit_worth_of, time_zone_name
from service.event_settings import thresholds_of
from service.models_document import CatalogueError
from service.models_source import names_of_models

if TYPE_CHECKING:  # imports the database's libraries
    from service.accounts.terminal import Streamed

_DATABASE: Final = next(row for row in rows(Settings) if row.name == "CHAT_DATABASE_URL")
_BUDGET_TIME_ZONE: Final = next(
    row for row in rows(Settings) if row.name == "CHAT_BUDGET_TIME_ZONE"
)
_WORTH: Final = next(row for row in rows(Settings) if row.name == "CHAT_CREDIT_WORTH")
_JOURNAL: Final = next(row for row in rows(Settings) if row.name == "CHAT_JOURNAL_DIRECTORY")
_THRESHOLDS: Final = next(row for row in rows(Settings) if row.name == "CHAT_EVENTS_THRESHOLDS")
_FAILED: Final[Mapping[str, int]] = {"ledger verify": 3}
"""The exit status of a failed command that uses 1 for something else."""


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    program: str = PROGRAM,
    now: Callable[[], int] = time.time_ns,
) -> int:
    """Run a command and return the exit status.

    Args:
        arguments: The arguments after the program's name.
        environment: The environment with CHAT_DATABASE_URL.
        program: The program's name, for its help and its errors.
        now: Returns the current time in nanoseconds since the Unix epoch.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal cannot show must not make the command fail. Python uses
        # this setting for standard error by default.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        asked = parser(now(), program).parse_args(arguments)
    except SystemExit as end:  # argparse has printed an error or the help
        return int(end.code or 0)
    return _run(program, asked, environment)


def _run(program: str, asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    failed = _FAILED.get(asked.command, 1)
    if sys.stdout is None:
        # The parent process closed it. A new key could not be shown.
        return _failed(program, "standard output is closed", failed)
    try:
        with interrupts.raised():
            if asked.command == "check":
                from service import check  # noqa: PLC0415  (imports the client of upstreams)

                return check.run(environment, show)
            if asked.command == "models measure":
                from service import measuring  # noqa: PLC0415  (as above)

                return measuring.run(environment, asked.models, show)
            return _on_store(program, asked, environment, failed)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, ModuleNotFoundError):
            raise  # its text is the name of a package, which `launch` reports
        return _failed(program, f"unexpected error: {type(error).__name__}", failed)


def _on_store(
    program: str, asked: argparse.Namespace, environment: Mapping[str, str], failed: int
) -> int:
    try:
        url = database_url(environment.get(_DATABASE.name) or _DATABASE.default)
    except ValueError:
        return _failed(program, f"{_DATABASE.name} must be {_DATABASE.allowed}", 2)
    try:
        asked.worth = credit_worth_of(environment.get(_WORTH.name, ""))
    except ValueError:
        found = found_values.found(environment[_WORTH.name])
        return _failed(program, f"{_WORTH.name} must be {_WORTH.allowed}; found {found}", 2)
    try:
        zone = environment.get(_BUDGET_TIME_ZONE.name) or _BUDGET_TIME_ZONE.default
        asked.budget_time_zone = time_zone_name(zone)
    except ValueError:
        name, allowed = _BUDGET_TIME_ZONE.name, _BUDGET_TIME_ZONE.allowed
        return _failed(program, f"{name} must be {allowed}; found {found_values.found(zone)}", 2)
    asked.is_default_store = not environment.get(_DATABASE.name)
    asked.known_models = partial(_known_models, environment)
    asked.journal_directory = environment.get(_JOURNAL.name) or _JOURNAL.default
    try:
        asked.thresholds = thresholds_of(environment)
    except ValueError:
        return _failed(program, f"{_THRESHOLDS.name} must be {_THRESHOLDS.allowed}", 2)
    return _carry_out(program, asked, url, failed)


def _known_models(environment: Mapping[str, str]) -> Collection[str] | None:
    """Return the names and patterns of the models, or None if the environment selects none.

    Raises:
        CommandError: The models file cannot be used.
    """
    from service.accounts.terminal import CommandError  # noqa: PLC0415  (as below)

    try:
        return names_of_models(environment)
    except CatalogueError as error:
        raise CommandError(f"CHAT_MODELS_FILE: {error}; the models were not checked") from error


def _carry_out(program: str, asked: argparse.Namespace, url: str, failed: int) -> int:
    # Imported here, so that --help does not wait for the database's libraries.
    from service.accounts.commands import COMMANDS, CREATION  # noqa: PLC0415
    from service.accounts.store_commands import Creation, open_store, place  # noqa: PLC0415
    from service.accounts.terminal import CommandError, Streamed  # noqa: PLC0415

    creation = CREATION.get(asked.command, Creation.NEVER)
    if getattr(asked, "new_store", False):
        creation = Creation.ALWAYS
    elif creation is Creation.FIRST and asked.is_default_store:
        creation = Creation.UNNAMED
    try:
        with open_store(url, creation=creation, thresholds=asked.thresholds) as store:
            asked.place = place(store)
            answer = COMMANDS[asked.command](store, asked)
            if isinstance(answer, Streamed):
                return _stream(program, answer, failed)
    except CommandError as error:
        return _failed(program, str(error), failed)
    try:
        sys.stdout.write(f"{answer.json() if asked.json else answer.text}\n")
        sys.stdout.flush()
    except OSError as error:
        return _unwritten(program, error, answer.unwritten, failed)
    if answer.note and not asked.json:
        _tell(answer.note)
    return 1 if answer.is_failure else 0


def _stream(program: str, answer: "Streamed", failed: int) -> int:
    """Write an output while the store is open.

    Raises:
        CommandError: The command failed. Some pieces may have been written.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    for piece in answer.pieces:
        try:
            sys.stdout.write(piece)
            sys.stdout.flush()
        except OSError as error:
            return _unwritten(program, error, "", failed)
    if answer.note:
        _tell(answer.note)
    return 0


def _unwritten(program: str, error: OSError, advice: str, failed: int) -> int:
    discard(sys.stdout)
    if isinstance(error, BrokenPipeError) and not advice:
        return failed  # the reader has closed the pipe
    return _failed(program, f"cannot write the output: {error.strerror}{advice}", failed)


def _failed(program: str, text: str, status: int) -> int:
    _tell(f"{program}: {text}")
    return status


def _tell(text: str) -> None:
    """Write a line to standard error. Ignore an error: the command has already run."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        except OSError:
            discard(sys.stderr)

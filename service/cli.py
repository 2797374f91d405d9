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
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from chatcompletion.credit_amounts import to_nano
from process import found_values, interrupts
from process.command_line import CommandParser, discard, show
from process.settings import database_url, rows, usage
from process.workers.arguments import USAGE
from service.accounts import field_rules, months
from service.accounts.field_rules import FieldRule
from service.config import Settings, credit_worth_of, time_zone_name
from service.event_settings import thresholds_of
from service.models_document import CatalogueError
from service.models_source import names_of_models

if TYPE_CHECKING:  # imports the database's libraries
    from service.accounts.terminal import Streamed

PROGRAM: Final = "python -m service"
"""Serves without a command."""

ADMIN: Final = "chatcompletion-admin"
"""The console script of the commands, which cannot serve."""

AREAS: Final[Mapping[str, str]] = {
    "accounts": "create, list, suspend and delete accounts",
    "keys": "create, list, change, find and revoke API keys",
    "credit": "add credit to accounts, or take it back",
    "usage": "show usage and charges by time, key and model, or export those of a month",
    "ledger": "show and verify the ledger",
    "events": "list events that were not delivered, and send or delete dead letters",
    "audit": "show what operators changed: who, when, what",
    "migrate": "migrate the schema of the store",
    "backup": "copy a SQLite store, with the charges in the journal, while it is in use",
    "models": "measure what the templates of models add to prompts",
    "check": "verify the settings, and ask each upstream for its models",
}
"""The first word of each command, and its help."""

_DATABASE: Final = next(row for row in rows(Settings) if row.name == "CHAT_DATABASE_URL")
_BUDGET_TIME_ZONE: Final = next(
    row for row in rows(Settings) if row.name == "CHAT_BUDGET_TIME_ZONE"
)
_WORTH: Final = next(row for row in rows(Settings) if row.name == "CHAT_CREDIT_WORTH")
_JOURNAL: Final = next(row for row in rows(Settings) if row.name == "CHAT_JOURNAL_DIRECTORY")
_THRESHOLDS: Final = next(row for row in rows(Settings) if row.name == "CHAT_EVENTS_THRESHOLDS")
_UNITS: Final = {"m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
_DURATION: Final = re.compile(r"([0-9]{1,6})([mhd])")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT: Final = "a duration such as 30d, 12h or 15m, or a time such as 2026-01-31T12:00:00Z"
_DEFAULT_SINCE: Final = "30d"
_FAILED: Final[Mapping[str, int]] = {"ledger verify": 3}
"""The exit status of a failed command that uses 1 for something else."""

_T = TypeVar("_T")


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


# ------------------------------------------------------------------------------------ arguments


def parser(now: int, program: str = PROGRAM) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        now: The current time in nanoseconds since the Unix epoch, for durations.
        program: The program's name.
    """
    if program == ADMIN:
        top = CommandParser(
            prog=program,
            description="Manage accounts, API keys and credit, without a server.",
            epilog=f"{_DATABASE.name} names the store (default: {_DATABASE.default}); "
            "docs/billing.md describes the commands, docs/configuration.md the variable.",
        )
    else:
        top = CommandParser(
            prog=program,
            usage=f"{program} {USAGE}\n       {program} COMMAND …",
            description="Without a command, run the server. With a command, manage its accounts.",
            epilog=usage(program, (Settings,)).partition("\n")[2].strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    top.set_defaults(now=now)
    areas = top.add_subparsers(prog=program, metavar="COMMAND", required=True)

    accounts = _area(areas, "accounts")
    create = _command(accounts, "accounts create", "create an account")
    create.add_argument("account", type=_text(field_rules.NEW_NAME), help="its name")
    create.add_argument(
        "--new-store",
        action="store_true",
        help="create the SQLite file of CHAT_DATABASE_URL beside another one",
    )
    create.add_argument(
        "--parent",
        type=_text(field_rules.NAME),
        help="the account above, which makes it a group",
    )
    create.add_argument("--credit", type=_credits, default=0, help="initial credit; default: 0")
    budget = _command(accounts, "accounts budget", "set or show the budgets of an account")
    _account(budget)
    _budgets(budget)
    _command(accounts, "accounts list", "list all accounts")
    _account(_command(accounts, "accounts show", "show an account"))
    for verb, help_ in (
        ("suspend", "reject calls with the keys of an account"),
        ("resume", "resume a suspended account"),
        ("delete", "delete an account without credit permanently"),
    ):
        _account(_command(accounts, f"accounts {verb}", help_))

    _add_keys(areas, now)

    credit = _area(areas, "credit")
    add = _command(credit, "credit add", "add credit to an account")
    _amount(add)
    deduct = _command(credit, "credit deduct", "take credit back that no call holds")
    _amount(deduct)

    _add_usage(areas, now)

    ledger = _area(areas, "ledger")
    show = _command(ledger, "ledger show", "show the ledger of an account, newest entry first")
    _account(show)
    show.add_argument("--limit", type=_limit, default=100, help="maximum entries; default: 100")
    _command(
        ledger,
        "ledger verify",
        "recompute every balance; exit with 1 if a balance differs, with 3 on failure",
    )

    acts = _command(areas, "audit", AREAS["audit"])
    acts.add_argument(
        "account", nargs="?", type=_text(field_rules.NAME), help="only the acts on this account"
    )
    acts.add_argument("--limit", type=_limit, default=100, help="maximum entries; default: 100")

    _add_events(areas)

    _command(areas, "migrate", AREAS["migrate"])
    backup = _command(areas, "backup", AREAS["backup"])
    backup.add_argument("file", help="the new file")
    if program != ADMIN:  # which is installed without the client of upstreams
        check = areas.add_parser("check", help=AREAS["check"], description=AREAS["check"])
        check.set_defaults(command="check")
        help_ = "measure what templates add to prompts, with a few requests to each upstream"
        measure = _area(areas, "models").add_parser("measure", help=help_, description=help_)
        measure.add_argument(
            "models", nargs="*", type=_text(field_rules.MODEL), help="default: all"
        )
        measure.set_defaults(command="models measure")
    return top


def _add_keys(areas: Any, now: int) -> None:
    keys = _area(areas, "keys")
    create = _command(keys, "keys create", "create a key and print it, once only")
    _account(create)
    create.add_argument(
        "--name", type=_text(field_rules.NEW_NAME), required=True, help="the name of the key"
    )
    for option, parse, help_ in _limits(now):
        create.add_argument(option, type=parse, help=help_)
    create.add_argument(
        "--identity",
        type=_text(field_rules.IDENTITY),
        help="bind the key to client certificates with this SPIFFE id or subject, not to a secret",
    )
    _account(_command(keys, "keys list", "list the keys of an account"))
    update = _command(keys, "keys update", "change the limits of a key; none removes a limit")
    _key(update)
    for option, parse, help_ in _limits(now):
        # An option that is not given changes nothing.
        update.add_argument(
            option, type=_or_none(parse), default=argparse.SUPPRESS, help=f"{help_}, or none"
        )
    budget = _command(keys, "keys budget", "set or show the budgets of a key")
    _key(budget)
    _budgets(budget)
    rotate = _command(keys, "keys rotate", "give a key a new secret and print it, once only")
    _key(rotate)
    rotate.add_argument(
        "--grace", type=_grace, default=0, help="how long the former secret stays valid: 1d, 12h"
    )
    for verb, help_ in (
        ("suspend", "reject calls with a key"),
        ("resume", "resume a suspended key"),
        ("revoke", "revoke a key permanently"),
    ):
        _key(_command(keys, f"keys {verb}", help_))
    find = _command(keys, "keys find", "find the key of a leaked secret")
    find.add_argument(
        "secret",
        type=_text(field_rules.SECRET),
        help="its first 14 characters, or all of it, which other users of the machine could see",
    )


def _add_usage(areas: Any, now: int) -> None:
    usage_ = _area(areas, "usage", otherwise="show")
    used = _command(usage_, "usage show", "show usage by account, time, key and model")
    used.add_argument(
        "account", nargs="?", type=_text(field_rules.NAME), help="only this account; default: all"
    )
    used.add_argument(
        "--by",
        choices=("day", "hour", "range"),
        default="day",
        help="the intervals; range is all of the time range; default: day",
    )
    used.add_argument(
        "--since", type=_earlier(now), default=_DEFAULT_SINCE, help=f"default: {_DEFAULT_SINCE}"
    )
    used.add_argument("--until", type=_earlier(now), help="not included")
    used.add_argument("--key", type=_text(field_rules.NAME), help="only usage of this key")
    used.add_argument("--model", type=_text(field_rules.MODEL), help="only usage of this model")
    help_ = "write the usage of a month by account, key and model, with totals"
    export = usage_.add_parser("export", help=help_, description=help_)
    export.set_defaults(command="usage export")
    export.add_argument("--month", type=_month, required=True, help="such as 2026-11")
    export.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="default: csv")
    export.add_argument(
        "--account", type=_text(field_rules.NAME), help="only this account; default: all"
    )
    export.add_argument(
        "--time-zone", type=_zone, default=UTC, help="where the month begins and ends; default: UTC"
    )


def _add_events(areas: Any) -> None:
    events = _area(areas, "events")
    listed = _command(events, "events list", "list events that wait for their delivery")
    listed.add_argument("--dead", action="store_true", help="list dead letters instead")
    listed.add_argument("--limit", type=_limit, default=100, help="maximum events; default: 100")
    for verb, help_ in (
        ("retry", "send dead letters again"),
        ("drop", "delete dead letters; their charges stay in the ledger"),
    ):
        which = _command(events, f"events {verb}", help_)
        which.add_argument("id", nargs="?", help="the id of the event")
        which.add_argument("--all", action="store_true", help="all dead letters")


def _area(areas: Any, name: str, *, otherwise: str = "") -> Any:
    help_ = AREAS[name]
    area = areas.add_parser(name, help=help_, description=help_)
    area.otherwise = otherwise
    return area.add_subparsers(metavar="COMMAND", required=True)


def _command(area: Any, command: str, help_: str) -> argparse.ArgumentParser:
    name = command.rpartition(" ")[2]
    made: argparse.ArgumentParser = area.add_parser(name, help=help_, description=help_)
    made.add_argument("--json", action="store_true", help="print one JSON document")
    made.set_defaults(command=command)
    return made


def _account(command: argparse.ArgumentParser) -> None:
    command.add_argument("account", type=_text(field_rules.NAME), help="the name of the account")


def _key(command: argparse.ArgumentParser) -> None:
    _account(command)
    command.add_argument("name", type=_text(field_rules.NAME), help="the name of the key")


def _budgets(command: argparse.ArgumentParser) -> None:
    for window, help_ in (
        ("day", "maximum credits per day"),
        ("week", "maximum credits per week, from Monday"),
        ("month", "maximum credits per calendar month"),
        ("total", "maximum credits in all"),
    ):
        command.add_argument(
            f"--{window}",
            type=_or_none(_some_credits),
            default=argparse.SUPPRESS,
            help=f"{help_}, or none",
        )
    command.add_argument(
        "--time-zone",
        type=_zone_name,
        help="where their days begin, such as Europe/Berlin; default: that of the budget, or of "
        f"{_BUDGET_TIME_ZONE.name}",
    )


def _zone_name(text: str) -> str:
    if not field_rules.TIME_ZONE.accepts(text):
        raise argparse.ArgumentTypeError(f"must {field_rules.no_time_zone(text)}")
    return text


def _amount(command: argparse.ArgumentParser) -> None:
    _account(command)
    command.add_argument(
        "amount", type=_some_credits, help="the amount in credits, such as 10 or 0.5"
    )
    command.add_argument(
        "--id",
        type=_text(field_rules.IDEMPOTENCY_ID),
        default=uuid4().hex,
        help="an id; repeating the command with the same id changes nothing; default: a new id",
    )


def _limits(now: int) -> Sequence[tuple[str, Callable[[str], Any], str]]:
    """Return the option, parser and help of each limit of a key."""
    return (
        ("--rpm", _limit, "requests per minute"),
        ("--tpm", _limit, "tokens per minute"),
        ("--concurrency", _limit, "maximum concurrent calls"),
        ("--models", _models, "the models that the key can use: a,b"),
        ("--expires", _later(now), _MOMENT),
    )


def _or_none(parse: Callable[[str], _T]) -> Callable[[str], _T | None]:
    return lambda text: None if text == "none" else parse(text)


def _checked(value: _T, rule: FieldRule) -> _T:
    if not rule.accepts(value):
        raise argparse.ArgumentTypeError(f"must {rule.expected(value)}")
    return value


def _text(rule: FieldRule) -> Callable[[str], str]:
    return lambda text: _checked(text, rule)


def _limit(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= 10
    return _checked(int(text) if is_number else 0, field_rules.LIMIT)


def _models(text: str) -> tuple[str, ...]:
    return _checked(tuple(name.strip() for name in text.split(",")), field_rules.MODELS)


def _month(text: str) -> str:
    try:
        return months.month(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be a month such as 2026-11") from error


def _zone(text: str) -> tzinfo:
    try:
        return months.zone(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be a time zone such as Europe/Vienna") from error


def _grace(text: str) -> int:
    duration = _DURATION.fullmatch(text)
    if not duration:
        raise argparse.ArgumentTypeError("must be a duration such as 7d, 12h or 15m")
    return _checked(int(duration[1]) * _UNITS[duration[2]], field_rules.GRACE)


def _credits(text: str) -> int:
    try:
        return to_nano(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            "must be an amount of credits up to 1000000000, with at most 9 decimals"
        ) from error


def _some_credits(text: str) -> int:
    amount = _credits(text)
    if not amount:
        raise argparse.ArgumentTypeError("must be more than 0")
    return amount


def _later(now: int) -> Callable[[str], int]:
    return lambda text: _checked(_instant(text, now, 1), field_rules.later_than(now))


def _earlier(now: int) -> Callable[[str], int]:
    return lambda text: _instant(text, now, -1)


def _instant(text: str, now: int, direction: int) -> int:
    """Parse a time, or a duration from `now` in a direction (1 or -1)."""
    duration = _DURATION.fullmatch(text)
    if duration:
        instant = now + direction * int(duration[1]) * _UNITS[duration[2]]
        return _checked(instant, field_rules.INSTANT)
    try:
        named = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {_MOMENT}") from error
    if named.tzinfo is None:
        named = named.replace(tzinfo=UTC)
    return _checked((named - _EPOCH) // timedelta(microseconds=1) * 1000, field_rules.INSTANT)

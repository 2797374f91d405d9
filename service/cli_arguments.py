"""The arguments of the commands.

parser(now) -> parse_args -> argparse.Namespace with `command`, `json` and the arguments
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import Any, Final
from uuid import uuid4

from process.command_line import CommandParser
from process.settings import rows, usage
from process.workers.arguments import USAGE
from service import cli_values as values
from service.accounts import field_rules
from service.config import Settings

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
_BUDGET_TIME_ZONE: Final = "CHAT_BUDGET_TIME_ZONE"
_DEFAULT_SINCE: Final = "30d"


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
    create.add_argument("account", type=values.text_of(field_rules.NEW_NAME), help="its name")
    create.add_argument(
        "--new-store",
        action="store_true",
        help="create the SQLite file of CHAT_DATABASE_URL beside another one",
    )
    create.add_argument(
        "--parent",
        type=values.text_of(field_rules.NAME),
        help="the account above, which makes it a group",
    )
    create.add_argument(
        "--credit", type=values.credit, default=0, help="initial credit; default: 0"
    )
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
    show.add_argument(
        "--limit", type=values.limit, default=100, help="maximum entries; default: 100"
    )
    _command(
        ledger,
        "ledger verify",
        "recompute every balance; exit with 1 if a balance differs, with 3 on failure",
    )

    acts = _command(areas, "audit", AREAS["audit"])
    acts.add_argument(
        "account",
        nargs="?",
        type=values.text_of(field_rules.NAME),
        help="only the acts on this account",
    )
    acts.add_argument(
        "--limit", type=values.limit, default=100, help="maximum entries; default: 100"
    )

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
            "models", nargs="*", type=values.text_of(field_rules.MODEL), help="default: all"
        )
        measure.set_defaults(command="models measure")
    return top


def _add_keys(areas: Any, now: int) -> None:
    keys = _area(areas, "keys")
    create = _command(keys, "keys create", "create a key and print it, once only")
    _account(create)
    create.add_argument(
        "--name",
        type=values.text_of(field_rules.NEW_NAME),
        required=True,
        help="the name of the key",
    )
    for option, parse, help_ in _limits(now):
        create.add_argument(option, type=parse, help=help_)
    create.add_argument(
        "--identity",
        type=values.text_of(field_rules.IDENTITY),
        help="bind the key to client certificates with this SPIFFE id or subject, not to a secret",
    )
    _account(_command(keys, "keys list", "list the keys of an account"))
    update = _command(keys, "keys update", "change the limits of a key; none removes a limit")
    _key(update)
    for option, parse, help_ in _limits(now):
        # An option that is not given changes nothing.
        update.add_argument(
            option, type=values.or_none(parse), default=argparse.SUPPRESS, help=f"{help_}, or none"
        )
    budget = _command(keys, "keys budget", "set or show the budgets of a key")
    _key(budget)
    _budgets(budget)
    rotate = _command(keys, "keys rotate", "give a key a new secret and print it, once only")
    _key(rotate)
    rotate.add_argument(
        "--grace",
        type=values.grace,
        default=0,
        help="how long the former secret stays valid: 1d, 12h",
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
        type=values.text_of(field_rules.SECRET),
        help="its first 14 characters, or all of it, which other users of the machine could see",
    )


def _add_usage(areas: Any, now: int) -> None:
    usage_ = _area(areas, "usage", otherwise="show")
    used = _command(usage_, "usage show", "show usage by account, time, key and model")
    used.add_argument(
        "account",
        nargs="?",
        type=values.text_of(field_rules.NAME),
        help="only this account; default: all",
    )
    used.add_argument(
        "--by",
        choices=("day", "hour", "range"),
        default="day",
        help="the intervals; range is all of the time range; default: day",
    )
    used.add_argument(
        "--since",
        type=values.earlier(now),
        default=_DEFAULT_SINCE,
        help=f"default: {_DEFAULT_SINCE}",
    )
    used.add_argument("--until", type=values.earlier(now), help="not included")
    used.add_argument("--key", type=values.text_of(field_rules.NAME), help="only usage of this key")
    used.add_argument(
        "--model", type=values.text_of(field_rules.MODEL), help="only usage of this model"
    )
    help_ = "write the usage of a month by account, key and model, with totals"
    export = usage_.add_parser("export", help=help_, description=help_)
    export.set_defaults(command="usage export")
    export.add_argument("--month", type=values.month, required=True, help="such as 2026-11")
    export.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="default: csv")
    export.add_argument(
        "--account",
        type=values.text_of(field_rules.NAME),
        help="only this account and its groups; default: all",
    )
    export.add_argument(
        "--time-zone",
        type=values.zone,
        default=UTC,
        help="where the month begins and ends; default: UTC",
    )


def _add_events(areas: Any) -> None:
    events = _area(areas, "events")
    listed = _command(events, "events list", "list events that wait for their delivery")
    listed.add_argument("--dead", action="store_true", help="list dead letters instead")
    listed.add_argument(
        "--limit", type=values.limit, default=100, help="maximum events; default: 100"
    )
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
    command.add_argument(
        "account", type=values.text_of(field_rules.NAME), help="the name of the account"
    )


def _key(command: argparse.ArgumentParser) -> None:
    _account(command)
    command.add_argument("name", type=values.text_of(field_rules.NAME), help="the name of the key")


def _budgets(command: argparse.ArgumentParser) -> None:
    for window, help_ in (
        ("day", "maximum credits per day"),
        ("week", "maximum credits per week, from Monday"),
        ("month", "maximum credits per calendar month"),
        ("total", "maximum credits in all"),
    ):
        command.add_argument(
            f"--{window}",
            type=values.or_none(values.some_credit),
            default=argparse.SUPPRESS,
            help=f"{help_}, or none",
        )
    command.add_argument(
        "--time-zone",
        type=values.zone_name,
        help="where their days begin, such as Europe/Berlin; default: that of the budget, or of "
        f"{_BUDGET_TIME_ZONE}",
    )


def _amount(command: argparse.ArgumentParser) -> None:
    _account(command)
    command.add_argument(
        "amount", type=values.some_credit, help="the amount in credits, such as 10 or 0.5"
    )
    command.add_argument(
        "--id",
        type=values.text_of(field_rules.IDEMPOTENCY_ID),
        default=uuid4().hex,
        help="an id; repeating the command with the same id changes nothing; default: a new id",
    )


def _limits(now: int) -> Sequence[tuple[str, Callable[[str], Any], str]]:
    """Return the option, parser and help of each limit of a key."""
    return (
        ("--rpm", values.limit, "requests per minute"),
        ("--tpm", values.limit, "tokens per minute"),
        ("--concurrency", values.limit, "maximum concurrent calls"),
        ("--models", values.models, "the models that the key can use: a,b"),
        ("--expires", values.later(now), values.MOMENT),
    )

"""`usage export`: the usage of a month as CSV or JSON Lines, for the billing systems of others."""

import argparse
from collections.abc import Mapping
from typing import Final

from service.accounts.directory import Directory
from service.accounts.export import FORMATS, rows
from service.accounts.months import month
from service.accounts.store_commands import Command
from service.accounts.terminal import Answer, CommandError, Streamed
from service.errors import AccountNotFound
from service.ledger.store import Store
from service.ledger.usage import HOUR


def _export(store: Store, asked: argparse.Namespace) -> Answer | Streamed:
    wanted = month(asked.month, asked.time_zone)
    if wanted.start % HOUR or wanted.end % HOUR:
        raise CommandError(
            f"in this time zone, the month {asked.month} does not begin and end at full hours in "
            "UTC, by which usage is totalled: use another --time-zone"
        )
    if asked.account is not None:
        try:
            Directory(store).account(asked.account)
        except AccountNotFound as failure:
            raise CommandError(f"there is no account {asked.account!r}") from failure
    return Streamed(
        pieces=FORMATS[asked.format](rows(store, wanted, asked.account)),
        note=(
            f"The month {asked.month} has not ended: later charges are missing."
            if wanted.end > asked.now
            else ""
        ),
    )


COMMANDS: Final[Mapping[str, Command]] = {"usage export": _export}

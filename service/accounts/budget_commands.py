"""The commands `accounts budget` and `keys budget`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Final

from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from service.accounts import messages
from service.accounts.asking import ask, every_page, on_store
from service.accounts.columns import BUDGET, rows_table
from service.accounts.operations import Operations
from service.accounts.store_commands import Command
from service.accounts.terminal import Answer, CommandError
from service.ledger.budgets import Window


def _budget(operations: Operations, asked: argparse.Namespace) -> Answer:
    """Set and remove the budgets that a command line names, or show all if it names none."""
    named = {window: getattr(asked, window) for window in Window if hasattr(asked, window)}
    if not named and asked.time_zone:
        options = ", ".join(f"--{window}" for window in Window)
        raise CommandError(f"name the budgets of this time zone: {options}")
    key_name: str = getattr(asked, "name", "")
    if not named:
        shown = _shown(operations, asked.account, key_name)
        return Answer(document=pb.SetBudgetsResponse(budgets=shown), text=rows_table(BUDGET, shown))
    of = {window: value for value, window in messages.WINDOWS.items()}
    request = pb.SetBudgetsRequest(
        account=asked.account,
        key_name=key_name,
        budgets=[
            account_pb2.Budget(
                window=of[window], limit_nano_credits=limit, time_zone=asked.time_zone or ""
            )
            for window, limit in named.items()
            if limit is not None
        ],
        removed_windows=[of[window] for window, limit in named.items() if limit is None],
    )
    response = ask(operations.set_budgets, request)
    return Answer(document=response, text=rows_table(BUDGET, response.budgets))


def _shown(operations: Operations, account: str, key_name: str) -> Sequence[account_pb2.Budget]:
    if not key_name:
        found = ask(operations.get_account, pb.GetAccountRequest(account=account))
        return found.account.budgets
    keys = every_page(operations.list_api_keys, pb.ListApiKeysRequest(account=account)).api_keys
    for key in keys:
        if key.name == key_name:
            return key.budgets
    raise CommandError(f"the account has no key {key_name!r}")


COMMANDS: Final[Mapping[str, Command]] = {
    "accounts budget": on_store(_budget),
    "keys budget": on_store(_budget),
}

"""Every command on accounts and the store, by its name.

    arguments -> request -> check, Operations -> response -> Answer: the response, and its text

A list is one response with all pages.
"""

from collections.abc import Mapping
from typing import Final

from service.accounts import (
    account_commands,
    budget_commands,
    event_commands,
    export_command,
    key_commands,
    report_commands,
    store_commands,
)
from service.accounts.store_commands import Command, Creation

COMMANDS: Final[Mapping[str, Command]] = {
    **account_commands.COMMANDS,
    **key_commands.COMMANDS,
    **budget_commands.COMMANDS,
    **report_commands.COMMANDS,
    **export_command.COMMANDS,
    **event_commands.COMMANDS,
    **store_commands.COMMANDS,
}
"""Each receives the arguments of its command line, and `now` in nanoseconds."""

CREATION: Final[Mapping[str, Creation]] = {
    "accounts create": Creation.FIRST,
    "migrate": Creation.ALWAYS,
}
"""The commands that can create a missing store."""

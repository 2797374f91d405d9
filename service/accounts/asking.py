"""Runs the operations of AccountService for commands.

request -> check, Operations -> response        pages of a list -> one response
"""

import argparse
import os
import pwd
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import Message

from service.accounts.directory import Directory
from service.accounts.operations import Operations, check, recorded
from service.accounts.store_commands import Command
from service.accounts.terminal import Answer, CommandError
from service.errors import Failure
from service.ledger.store import Store

PAGE: Final = 1000
"""Maximum entries of a page."""

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_Operation = Callable[[_Request], _Response]


def on_store(run: Callable[[Operations, argparse.Namespace], Answer]) -> Command:
    """Return the command that runs a function with the operations on the store."""

    def on_store(store: Store, asked: argparse.Namespace) -> Answer:
        operations = Operations(
            Directory(store),
            now=lambda: int(asked.now),
            models=asked.known_models,
            worth=asked.worth,
            time_zone=asked.budget_time_zone,
        )
        return run(operations, asked)

    return on_store


def ask(operation: _Operation[_Request, _Response], request: _Request) -> _Response:
    """Check a request and run its operation, as AccountService does."""
    try:
        check(request)
        return recorded(f"cli:{user()}", operation, request)
    except Failure as failure:
        # The text follows the program's name and a colon.
        text = failure.message[:1].lower() + failure.message[1:].removesuffix(".")
        raise CommandError(text) from failure


def user() -> str:
    """Return the name of the user who runs the command."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def every_page(
    operation: _Operation[Any, _Response], request: Any, most: int = sys.maxsize
) -> _Response:
    """Return all pages of a list as one response, with up to `most` entries."""
    request.page_size = min(PAGE, most)
    found: Any = ask(operation, request)
    (entries,) = (field.name for field in found.DESCRIPTOR.fields if field.is_repeated)
    while found.next_page_token and (left := most - len(getattr(found, entries))):
        request.page_size, request.page_token = min(PAGE, left), found.next_page_token
        found.ClearField("next_page_token")
        found.MergeFrom(ask(operation, request))
    return cast("_Response", found)

"""What operators do on the command line, straight on the store: one function per command.

    open_store(url) ─► COMMANDS["keys create"](store, arguments) ─► Answer: a document, and its text

Amounts in documents are told in credits, as strings, and in integer nano-credits.
"""

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from chatcompletion.credit_amounts import members, to_text
from service.accounts.directory import DAY, Directory
from service.accounts.text_tables import table
from service.accounts.verification import differences
from service.accounts.views import (
    AccountNotFoundError,
    AccountView,
    EntryView,
    ExistsError,
    KeyLimits,
    KeyNotFoundError,
    KeyView,
    Usage,
)
from service.ledger.migrations import HEAD, migrate
from service.ledger.rows import Grant, Granted
from service.ledger.store import Store, StoreError
from service.ledger.usage import HOUR

MOST_USAGE: Final = 100_000
"""Sums that one answer holds."""

INTERVALS: Final[Mapping[str, int]] = {"day": DAY, "hour": HOUR}

_PAGE: Final = 1000
_SECOND: Final = 10**9
_OPENING: Final = "opening"
"""The idempotency id of the credit that an account is created with."""

_View = TypeVar("_View")


class CommandError(Exception):
    """The command failed; the text is one line for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command has to say."""

    document: Mapping[str, Any]
    """For machines."""
    text: str
    """For people."""
    note: str = ""
    """For people, beside the answer: not part of what is piped on."""
    unwritten: str = ""
    """What to do where the answer cannot be written, after a semicolon."""
    is_failure: bool = False


Command = Callable[[Store, argparse.Namespace], Answer]


@contextmanager
def open_store(url: str, *, creates: bool) -> Iterator[Store]:
    """Open a store, with its schema up to date.

    Args:
        url: Its address.
        creates: Whether a SQLite file is made where there is none. A mistyped name must not look
            like an empty store.

    Raises:
        CommandError: there is no such store, or it cannot be used.
    """
    try:
        store = Store(url)
    except ValueError as error:
        raise CommandError(f"CHAT_DATABASE_URL: {error}") from error
    try:
        is_file = store.engine.dialect.name == "sqlite"
        if is_file and not creates and not Path(store.name).exists():
            raise CommandError(f"CHAT_DATABASE_URL: {store.name}: there is no such file")
        migrate(store)
        yield store
    except StoreError as error:
        raise CommandError(f"CHAT_DATABASE_URL: {error}") from error
    except AccountNotFoundError as error:
        raise CommandError(f"there is no account {error.args[0]!r}") from error
    except KeyNotFoundError as error:
        raise CommandError(f"the account has no key {error.args[0]!r}") from error
    except ExistsError as error:
        raise CommandError(f"{error.args[0]!r} exists already") from error
    finally:
        store.close()


# ------------------------------------------------------------------------------------- commands


def _create_account(store: Store, arguments: argparse.Namespace) -> Answer:
    directory = Directory(store)
    created = directory.create_account(arguments.account)
    if arguments.credit:
        _add(store, created, arguments.credit, _OPENING)
    return _one_account(directory.account(created.name))


def _list_accounts(store: Store, _: argparse.Namespace) -> Answer:
    found = _all(lambda after: Directory(store).accounts(after=after, limit=_PAGE))
    return Answer(
        document={"accounts": [_account(view) for view in found]}, text=_accounts_table(found)
    )


def _add_credit(store: Store, arguments: argparse.Namespace) -> Answer:
    directory = Directory(store)
    owner = directory.account(arguments.account)
    _add(store, owner, arguments.amount, arguments.id)
    made = directory.grant(owner.id, arguments.id)
    if made.amount != arguments.amount:
        raise CommandError(
            f"the id {arguments.id!r} was used to add {to_text(made.amount)}; nothing was added"
        )
    answer = _one_account(directory.account(owner.name))
    return Answer(
        document={"id": arguments.id, **members("amount", made.amount), **answer.document},
        text=answer.text,
        note=f"{to_text(made.amount)} added with the id {arguments.id}",
    )


def _add(store: Store, owner: AccountView, amount: int, idempotency_id: str) -> None:
    grant = Grant(account_id=owner.id, amount=amount, idempotency_id=idempotency_id)
    try:
        (outcome,) = store.apply([grant])
    except StoreError as error:
        again = ("credit", "add", owner.name, to_text(amount), "--id", idempotency_id)
        raise CommandError(
            f"{error}; to add it once, whatever happened: {shlex.join(again)}"
        ) from error
    if isinstance(outcome, Granted) and outcome.balance is None:
        raise CommandError("the balance would exceed its largest value; nothing was added")


def _create_key(store: Store, arguments: argparse.Namespace) -> Answer:
    limits = KeyLimits(
        models=arguments.models,
        requests_per_minute=arguments.rpm,
        tokens_per_minute=arguments.tpm,
        concurrency=arguments.concurrency,
        expires_at=arguments.expires,
    )
    created, key = Directory(store).create_key(arguments.account, arguments.name, limits)
    return Answer(
        document={**_key(created), "key": key},
        text=key,
        note=f"the key {created.name!r} of {created.account!r}, shown this once",
        unwritten=(
            f"; nobody has the key {created.name!r} of {created.account!r}, which was made:"
            " revoke it, and create one of another name"
        ),
    )


def _list_keys(store: Store, arguments: argparse.Namespace) -> Answer:
    directory = Directory(store)
    found = _all(lambda after: directory.keys(arguments.account, after=after, limit=_PAGE))
    return Answer(document={"keys": [_key(view) for view in found]}, text=_keys_table(found))


def _revoke_key(store: Store, arguments: argparse.Namespace) -> Answer:
    revoked = Directory(store).revoke_key(arguments.account, arguments.name)
    return Answer(document=_key(revoked), text=_keys_table([revoked]))


def _usage(store: Store, arguments: argparse.Namespace) -> Answer:
    found = Directory(store).usage(
        arguments.account,
        since=arguments.since,
        until=arguments.until,
        interval=INTERVALS[arguments.by],
        key_name=arguments.key,
        model=arguments.model,
        limit=MOST_USAGE + 1,
    )
    if len(found) > MOST_USAGE:
        raise CommandError(f"more than {MOST_USAGE} rows: ask for less with --since and --until")
    return Answer(
        document={"usage": [_usage_members(view) for view in found]}, text=_usage_table(found)
    )


def _show_ledger(store: Store, arguments: argparse.Namespace) -> Answer:
    found = Directory(store).ledger(arguments.account, limit=arguments.limit)
    return Answer(
        document={"entries": [_entry(view) for view in found]}, text=_entries_table(found)
    )


def _verify_ledger(store: Store, _: argparse.Namespace) -> Answer:
    found = [*differences(store)]
    if not found:
        return Answer(document={"differences": []}, text="All is as ledger and holds say.")
    head = ("account", "of", "stored", "recomputed")
    rows = [(view.account, view.of, view.stored, view.recomputed) for view in found]
    return Answer(
        document={"differences": [dict(zip(head, row, strict=True)) for row in rows]},
        text=table(head, [tuple(map(str, row)) for row in rows], numbers=("stored", "recomputed")),
        is_failure=True,
    )


def _migrate(store: Store, _: argparse.Namespace) -> Answer:
    return Answer(document={"schema": HEAD}, text=f"The schema of {store.name} is {HEAD}.")


COMMANDS: Final[Mapping[str, Command]] = {
    "accounts create": _create_account,
    "accounts list": _list_accounts,
    "credit add": _add_credit,
    "keys create": _create_key,
    "keys list": _list_keys,
    "keys revoke": _revoke_key,
    "ledger show": _show_ledger,
    "ledger verify": _verify_ledger,
    "migrate": _migrate,
    "usage": _usage,
}

CREATING: Final = frozenset({"accounts create", "migrate"})
"""The commands that make a store where there is none."""


def _all(page: Callable[[int], list[_View]]) -> list[_View]:
    found = page(0)
    size = len(found)
    while size == _PAGE:
        more = page(found[-1].id)  # type: ignore[attr-defined]  # accounts and keys have ids
        found += more
        size = len(more)
    return found


# -------------------------------------------------------------------------- documents and tables


def instant(nanoseconds: int | None) -> str | None:
    """Return a time as RFC 3339 spells it, in UTC and whole seconds."""
    if nanoseconds is None:
        return None
    return datetime.fromtimestamp(nanoseconds // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _account(view: AccountView) -> dict[str, Any]:
    return {
        "account": view.name,
        **members("balance", view.balance),
        **members("held", view.held),
        **members("available", view.balance - view.held),
        "created_at": instant(view.created_at),
    }


def _one_account(view: AccountView) -> Answer:
    return Answer(document=_account(view), text=_accounts_table([view]))


def _accounts_table(views: Sequence[AccountView]) -> str:
    amounts = ("balance", "held", "available")
    return table(
        ("account", *amounts, "created"),
        [
            (
                view.name,
                to_text(view.balance),
                to_text(view.held),
                to_text(view.balance - view.held),
                _shown(instant(view.created_at)),
            )
            for view in views
        ],
        numbers=amounts,
    )


def _key(view: KeyView) -> dict[str, Any]:
    return {
        "account": view.account,
        "name": view.name,
        "models": None if view.models is None else list(view.models),
        "requests_per_minute": view.requests_per_minute,
        "tokens_per_minute": view.tokens_per_minute,
        "concurrency": view.concurrency,
        "expires_at": instant(view.expires_at),
        "revoked_at": instant(view.revoked_at),
        "created_at": instant(view.created_at),
    }


def _keys_table(views: Sequence[KeyView]) -> str:
    limits = ("rpm", "tpm", "concurrency")
    return table(
        ("name", *limits, "models", "expires", "revoked", "created"),
        [
            (
                view.name,
                _shown(view.requests_per_minute),
                _shown(view.tokens_per_minute),
                _shown(view.concurrency),
                "all" if view.models is None else ",".join(view.models),
                _shown(instant(view.expires_at)),
                _shown(instant(view.revoked_at)),
                _shown(instant(view.created_at)),
            )
            for view in views
        ],
        numbers=limits,
    )


def _entry(view: EntryView) -> dict[str, Any]:
    return {
        "id": view.id,
        "kind": view.kind.name.lower(),
        **members("amount", view.amount),
        "created_at": instant(view.created_at),
        "idempotency_id": view.idempotency_id,
        "hold_id": view.hold_id,
        "key": view.key_name,
        "model": view.model,
        "prompt_tokens": view.prompt_tokens,
        "completion_tokens": view.completion_tokens,
        "partial": view.partial,
        "estimated": view.estimated,
    }


def _entries_table(views: Sequence[EntryView]) -> str:
    numbers = ("id", "amount", "prompt", "completion")
    return table(
        ("id", "created", "kind", "amount", "key", "model", "prompt", "completion", "marks"),
        [
            (
                str(view.id),
                _shown(instant(view.created_at)),
                view.kind.name.lower(),
                to_text(view.amount),
                _shown(view.key_name),
                _shown(view.model),
                str(view.prompt_tokens),
                str(view.completion_tokens),
                ",".join(name for name in ("partial", "estimated") if getattr(view, name))
                or _shown(view.idempotency_id),
            )
            for view in views
        ],
        numbers=numbers,
    )


def _usage_members(view: Usage) -> dict[str, Any]:
    return {
        "start": instant(view.start),
        "key": view.key_name,
        "model": view.model,
        "requests": view.requests,
        "prompt_tokens": view.prompt_tokens,
        "completion_tokens": view.completion_tokens,
        **members("charged", view.charged),
    }


def _usage_table(views: Sequence[Usage]) -> str:
    return table(
        ("start", "key", "model", "requests", "prompt", "completion", "charged"),
        [
            (
                _shown(instant(view.start)),
                view.key_name,
                view.model,
                str(view.requests),
                str(view.prompt_tokens),
                str(view.completion_tokens),
                to_text(view.charged),
            )
            for view in views
        ],
        numbers=("requests", "prompt", "completion", "charged"),
    )


def _shown(value: object) -> str:
    return "-" if value is None else str(value)

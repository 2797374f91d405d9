"""The commands on accounts: they run the operations of AccountService on the store.

    arguments -> request -> check, Operations -> response -> Answer: the response, and its text

A list is one response with all pages.
"""

import argparse
import os
import pwd
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chatcompletion.credit_amounts import to_text
from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from service.accounts import messages, store_commands
from service.accounts.directory import Directory
from service.accounts.operations import Operations, check, recorded
from service.accounts.store_commands import Command
from service.accounts.terminal import Answer, CommandError, table
from service.errors import Failure
from service.ledger.store import Store, StoreError

MOST_USAGE: Final = 100_000
"""Maximum usage totals in one output."""

LIMITS: Final[Mapping[str, str]] = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "concurrency": "concurrency",
    "models": "models",
    "expires": "expire_time",
}
"""The field of KeyLimits for each option of `keys create` and `keys update`."""

_PAGE: Final = 1000
_OPENING: Final = "opening"
"""The idempotency id of the initial credit of an account."""

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_Operation = Callable[[_Request], _Response]


def _create_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.CreateAccountRequest(name=asked.account)
    response = _ask(operations.create_account, request)
    if asked.credit:
        added = _added(operations, asked.account, asked.credit, _OPENING)
        response.account.CopyFrom(added.account)
    return Answer(document=response, text=_table(_ACCOUNT, [response.account]))


def _suspend_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.SuspendAccountRequest(account=asked.account)
    response = _ask(operations.suspend_account, request)
    return Answer(document=response, text=_table(_ACCOUNT, [response.account]))


def _resume_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    response = _ask(operations.resume_account, pb.ResumeAccountRequest(account=asked.account))
    return Answer(document=response, text=_table(_ACCOUNT, [response.account]))


def _delete_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    response = _ask(operations.delete_account, pb.DeleteAccountRequest(account=asked.account))
    return Answer(document=response, text=_table(_ACCOUNT, [response.account]))


def _list_accounts(operations: Operations, _: argparse.Namespace) -> Answer:
    found = _all(operations.list_accounts, pb.ListAccountsRequest())
    return Answer(document=found, text=_table(_ACCOUNT, found.accounts))


def _add_credit(operations: Operations, asked: argparse.Namespace) -> Answer:
    added = _added(operations, asked.account, asked.amount, asked.id)
    return Answer(
        document=added,
        text=_table(_ACCOUNT, [added.account]),
        note=f"{to_text(added.entry.amount_nano_credits)} added with the id {asked.id}",
    )


def _added(
    operations: Operations, account: str, amount: int, idempotency_id: str
) -> pb.AddCreditResponse:
    request = pb.AddCreditRequest(
        account=account, amount_nano_credits=amount, idempotency_id=idempotency_id
    )
    with _once("add", "added", request):
        return _ask(operations.add_credit, request)


def _deduct_credit(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.DeductCreditRequest(
        account=asked.account, amount_nano_credits=asked.amount, idempotency_id=asked.id
    )
    with _once("deduct", "deducted", request):
        deducted = _ask(operations.deduct_credit, request)
    return Answer(
        document=deducted,
        text=_table(_ACCOUNT, [deducted.account]),
        note=f"{to_text(-deducted.entry.amount_nano_credits)} deducted with the id {asked.id}",
    )


@contextmanager
def _once(
    verb: str, done: str, request: pb.AddCreditRequest | pb.DeductCreditRequest
) -> Iterator[None]:
    """If the store fails, say how to repeat the request without repeating its effect."""
    try:
        yield
    except StoreError as error:
        amount = to_text(request.amount_nano_credits)
        again = ("credit", verb, request.account, amount, "--id", request.idempotency_id)
        raise CommandError(
            f"{error}; the credit may have been {done}. To {verb} it once: {shlex.join(again)}"
        ) from error


def _limits(asked: argparse.Namespace) -> account_pb2.KeyLimits:
    """Return the limits that a command line names."""
    models: Sequence[str] | None = getattr(asked, "models", None)
    return account_pb2.KeyLimits(
        models=account_pb2.AllowedModels(names=models) if models else None,
        requests_per_minute=getattr(asked, "rpm", None),
        tokens_per_minute=getattr(asked, "tpm", None),
        concurrency=getattr(asked, "concurrency", None),
        expire_time=messages.timestamp(getattr(asked, "expires", None)),
    )


def _create_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.CreateApiKeyRequest(
        account=asked.account,
        name=asked.name,
        limits=_limits(asked),
        identity=asked.identity or "",
    )
    response = _ask(operations.create_api_key, request)
    if asked.identity:
        return Answer(
            document=response,
            text=_table(_KEY, [response.api_key]),
            note=f"Clients with a certificate for {asked.identity!r} call for {asked.account!r}.",
        )
    named = f"key {asked.name!r} for account {asked.account!r}"
    return Answer(
        document=response,
        text=response.key_string,
        note=f"{named[:1].upper()}{named[1:]}. Save it now: it cannot be shown again.",
        unwritten=(f"; {named} was created but could not be shown: revoke it and create another"),
    )


def _list_keys(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ListApiKeysRequest(account=asked.account)
    found = _all(operations.list_api_keys, request)
    return Answer(document=found, text=_table(_KEY, found.api_keys))


def _update_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    changed = [path for option, path in LIMITS.items() if hasattr(asked, option)]
    if not changed:
        raise CommandError(f"name a limit to change: {', '.join(f'--{name}' for name in LIMITS)}")
    request = pb.UpdateApiKeyRequest(
        account=asked.account,
        name=asked.name,
        limits=_limits(asked),
        update_mask=FieldMask(paths=changed),
    )
    response = _ask(operations.update_api_key, request)
    return Answer(document=response, text=_table(_KEY, [response.api_key]))


def _rotate_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    grace = Duration()
    grace.FromNanoseconds(asked.grace)
    request = pb.RotateApiKeyRequest(account=asked.account, name=asked.name, grace_period=grace)
    response = _ask(operations.rotate_api_key, request)
    until = _cell(response.api_key, "former_secret_expire_time")
    return Answer(
        document=response,
        text=response.key_string,
        note=f"The former secret is valid until {until}. Save the new one now: it cannot be shown "
        "again.",
        unwritten="; the key has a new secret that could not be shown: rotate it again",
    )


def _suspend_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.SuspendApiKeyRequest(account=asked.account, name=asked.name)
    response = _ask(operations.suspend_api_key, request)
    return Answer(document=response, text=_table(_KEY, [response.api_key]))


def _resume_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ResumeApiKeyRequest(account=asked.account, name=asked.name)
    response = _ask(operations.resume_api_key, request)
    return Answer(document=response, text=_table(_KEY, [response.api_key]))


def _find_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    response = _ask(operations.find_api_key, pb.FindApiKeyRequest(secret=asked.secret))
    columns: _Columns = {"account": "account", **_KEY}
    return Answer(document=response, text=_table(columns, [response.api_key]))


def _revoke_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.RevokeApiKeyRequest(account=asked.account, name=asked.name)
    response = _ask(operations.revoke_api_key, request)
    return Answer(document=response, text=_table(_KEY, [response.api_key]))


def _show_ledger(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ListLedgerEntriesRequest(account=asked.account)
    found = _all(operations.list_ledger_entries, request, asked.limit)
    return Answer(document=found, text=_table(_ENTRY, found.entries))


def _show_audit(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ListAuditEntriesRequest(account=asked.account)
    found = _all(operations.list_audit_entries, request, asked.limit)
    return Answer(document=found, text=_table(_ACT, found.entries))


def _usage(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ListUsageRequest(
        account=asked.account,
        key_name=asked.key,
        model=asked.model,
        interval=account_pb2.UsageInterval.Value(f"USAGE_INTERVAL_{asked.by.upper()}"),
        start_time=messages.timestamp(asked.since),
        end_time=messages.timestamp(asked.until),
    )
    found = _all(operations.list_usage, request, MOST_USAGE)
    if found.next_page_token:
        raise CommandError(f"more than {MOST_USAGE} rows: use a shorter --since and --until range")
    return Answer(document=found, text=_table(_USAGE, found.usage))


def _on_store(run: Callable[[Operations, argparse.Namespace], Answer]) -> Command:
    def on_store(store: Store, asked: argparse.Namespace) -> Answer:
        return run(Operations(Directory(store), now=lambda: int(asked.now)), asked)

    return on_store


COMMANDS: Final[Mapping[str, Command]] = {
    "accounts create": _on_store(_create_account),
    "accounts list": _on_store(_list_accounts),
    "accounts suspend": _on_store(_suspend_account),
    "accounts resume": _on_store(_resume_account),
    "accounts delete": _on_store(_delete_account),
    "credit add": _on_store(_add_credit),
    "credit deduct": _on_store(_deduct_credit),
    "keys create": _on_store(_create_key),
    "keys list": _on_store(_list_keys),
    "keys update": _on_store(_update_key),
    "keys rotate": _on_store(_rotate_key),
    "keys suspend": _on_store(_suspend_key),
    "keys resume": _on_store(_resume_key),
    "keys find": _on_store(_find_key),
    "keys revoke": _on_store(_revoke_key),
    "ledger show": _on_store(_show_ledger),
    "usage": _on_store(_usage),
    "audit": _on_store(_show_audit),
    **store_commands.COMMANDS,
}
"""Each receives the arguments of its command line, and `now` in nanoseconds."""

CREATING: Final = frozenset({"accounts create", "migrate"})
"""The commands that create a missing store."""


def _ask(operation: _Operation[_Request, _Response], request: _Request) -> _Response:
    """Check a request and run its operation, as AccountService does."""
    try:
        check(request)
        return recorded(f"cli:{_user()}", operation, request)
    except Failure as failure:
        # The text follows the program's name and a colon.
        text = failure.message[:1].lower() + failure.message[1:].removesuffix(".")
        raise CommandError(text) from failure


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _all(operation: _Operation[Any, _Response], request: Any, most: int = sys.maxsize) -> _Response:
    """Return all pages of a list as one response, with up to `most` entries."""
    request.page_size = min(_PAGE, most)
    found: Any = _ask(operation, request)
    (entries,) = (field.name for field in found.DESCRIPTOR.fields if field.is_repeated)
    while found.next_page_token and (left := most - len(getattr(found, entries))):
        request.page_size, request.page_token = min(_PAGE, left), found.next_page_token
        found.ClearField("next_page_token")
        found.MergeFrom(_ask(operation, request))
    return cast("_Response", found)


# --------------------------------------------------------------------------------------- tables


def _models(key: account_pb2.ApiKey) -> str:
    return ",".join(key.limits.models.names) if key.limits.HasField("models") else "all"


def _marks(entry: account_pb2.LedgerEntry) -> str:
    marks = [name for name in ("partial", "estimated") if getattr(entry, name)]
    return ",".join(marks) or entry.idempotency_id or "-"


_Columns = Mapping[str, str | Callable[[Any], str]]

_ACCOUNT: Final[_Columns] = {
    "account": "name",
    "balance": "balance_nano_credits",
    "held": "held_nano_credits",
    "available": "available_nano_credits",
    "created": "create_time",
    "suspended": "suspend_time",
}
_KEY: Final[_Columns] = {
    "name": "name",
    "rpm": "limits.requests_per_minute",
    "tpm": "limits.tokens_per_minute",
    "concurrency": "limits.concurrency",
    "models": _models,
    "expires": "limits.expire_time",
    "revoked": "revoke_time",
    "created": "create_time",
    "suspended": "suspend_time",
    "used": "last_use_time",
    "secret": "secret_prefix",
    "identity": "identity",
}
_ENTRY: Final[_Columns] = {
    "id": "id",
    "created": "create_time",
    "kind": "kind",
    "amount": "amount_nano_credits",
    "key": "key_name",
    "model": "model",
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "marks": _marks,
}
_ACT: Final[_Columns] = {
    "id": "id",
    "created": "create_time",
    "actor": "actor",
    "method": "method",
    "account": "account",
    "request": "request_json",
}
_USAGE: Final[_Columns] = {
    "start": "start_time",
    "key": "key_name",
    "model": "model",
    "requests": "requests",
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "charged": "charged_nano_credits",
}
"""The columns of each table, each with the path of a field or a function that returns its text."""

_NUMBERS: Final = frozenset(
    {
        *("balance", "held", "available", "rpm", "tpm", "concurrency"),
        *("id", "amount", "requests", "prompt", "completion", "charged"),
    }
)
"""The right-aligned columns."""


def _table(columns: _Columns, rows: Iterable[Message]) -> str:
    cells = [
        [shown(row) if callable(shown) else _cell(row, shown) for shown in columns.values()]
        for row in rows
    ]
    return table([*columns], cells, numbers=_NUMBERS)


def _cell(value: Any, path: str) -> str:
    """Return the text of a field: "-" if it is absent, a time in whole seconds in UTC."""
    for name in path.split("."):
        field = value.DESCRIPTOR.fields_by_name[name]
        if field.has_presence and not value.HasField(name):
            return "-"
        value = getattr(value, name)
    if isinstance(value, Timestamp):
        return f"{value.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"
    if path.endswith("_nano_credits"):
        return to_text(value)
    if field.enum_type:
        return str(field.enum_type.values_by_number[value].name).rpartition("_")[2].lower()
    return str(value) or "-"

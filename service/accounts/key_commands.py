"""The commands `keys …`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from service.accounts import messages
from service.accounts.asking import ask, every_page, on_store
from service.accounts.columns import KEY, Columns, cell, rows_table
from service.accounts.operations import Operations
from service.accounts.store_commands import Command
from service.accounts.terminal import Answer, CommandError

LIMITS: Final[Mapping[str, str]] = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "concurrency": "concurrency",
    "models": "models",
    "expires": "expire_time",
}
"""The field of KeyLimits for each option of `keys create` and `keys update`."""


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
    response = ask(operations.create_api_key, request)
    if asked.identity:
        return Answer(
            document=response,
            text=rows_table(KEY, [response.api_key]),
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
    found = every_page(operations.list_api_keys, request)
    return Answer(document=found, text=rows_table(KEY, found.api_keys))


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
    response = ask(operations.update_api_key, request)
    return Answer(document=response, text=rows_table(KEY, [response.api_key]))


def _rotate_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    grace = Duration()
    grace.FromNanoseconds(asked.grace)
    request = pb.RotateApiKeyRequest(account=asked.account, name=asked.name, grace_period=grace)
    response = ask(operations.rotate_api_key, request)
    until = cell(response.api_key, "former_secret_expire_time")
    return Answer(
        document=response,
        text=response.key_string,
        note=f"The former secret is valid until {until}. Save the new one now: it cannot be shown "
        "again.",
        unwritten="; the key has a new secret that could not be shown: rotate it again",
    )


def _suspend_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.SuspendApiKeyRequest(account=asked.account, name=asked.name)
    response = ask(operations.suspend_api_key, request)
    return Answer(document=response, text=rows_table(KEY, [response.api_key]))


def _resume_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ResumeApiKeyRequest(account=asked.account, name=asked.name)
    response = ask(operations.resume_api_key, request)
    return Answer(document=response, text=rows_table(KEY, [response.api_key]))


def _find_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    response = ask(operations.find_api_key, pb.FindApiKeyRequest(secret=asked.secret))
    columns: Columns = {"account": "account", **KEY}
    return Answer(document=response, text=rows_table(columns, [response.api_key]))


def _revoke_key(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.RevokeApiKeyRequest(account=asked.account, name=asked.name)
    response = ask(operations.revoke_api_key, request)
    return Answer(document=response, text=rows_table(KEY, [response.api_key]))


COMMANDS: Final[Mapping[str, Command]] = {
    "keys create": on_store(_create_key),
    "keys list": on_store(_list_keys),
    "keys update": on_store(_update_key),
    "keys rotate": on_store(_rotate_key),
    "keys suspend": on_store(_suspend_key),
    "keys resume": on_store(_resume_key),
    "keys find": on_store(_find_key),
    "keys revoke": on_store(_revoke_key),
}

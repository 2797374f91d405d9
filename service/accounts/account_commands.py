"""The commands `accounts …` and `credit …`."""

import argparse
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from chatcompletion.credit_amounts import to_text
from chatcompletion.v1 import account_service_pb2 as pb
from service.accounts.asking import ask, every_page, on_store
from service.accounts.columns import ACCOUNT, rows_table
from service.accounts.operations import Operations
from service.accounts.store_commands import Command
from service.accounts.terminal import Answer, CommandError
from service.ledger.store import StoreError

_OPENING: Final = "opening"
"""The idempotency id of the initial credit of an account."""


def _create_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.CreateAccountRequest(name=asked.account, parent=asked.parent or "")
    response = ask(operations.create_account, request)
    if asked.credit:
        added = _added(operations, asked.account, asked.credit, _OPENING)
        response.account.CopyFrom(added.account)
    return Answer(
        document=response,
        text=rows_table(ACCOUNT, [response.account]),
        note=f"Account {asked.account!r} is in the store {asked.place}.",
    )


def _show_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    response = ask(operations.get_account, pb.GetAccountRequest(account=asked.account))
    return Answer(document=response, text=rows_table(ACCOUNT, [response.account]))


def _suspend_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.SuspendAccountRequest(account=asked.account)
    response = ask(operations.suspend_account, request)
    return Answer(document=response, text=rows_table(ACCOUNT, [response.account]))


def _resume_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    response = ask(operations.resume_account, pb.ResumeAccountRequest(account=asked.account))
    return Answer(document=response, text=rows_table(ACCOUNT, [response.account]))


def _delete_account(operations: Operations, asked: argparse.Namespace) -> Answer:
    response = ask(operations.delete_account, pb.DeleteAccountRequest(account=asked.account))
    return Answer(document=response, text=rows_table(ACCOUNT, [response.account]))


def _list_accounts(operations: Operations, _: argparse.Namespace) -> Answer:
    found = every_page(operations.list_accounts, pb.ListAccountsRequest())
    return Answer(document=found, text=rows_table(ACCOUNT, found.accounts))


def _add_credit(operations: Operations, asked: argparse.Namespace) -> Answer:
    added = _added(operations, asked.account, asked.amount, asked.id)
    return Answer(
        document=added,
        text=rows_table(ACCOUNT, [added.account]),
        note=f"{to_text(added.entry.amount_nano_credits)} added with the id {asked.id}",
    )


def _added(
    operations: Operations, account: str, amount: int, idempotency_id: str
) -> pb.AddCreditResponse:
    request = pb.AddCreditRequest(
        account=account, amount_nano_credits=amount, idempotency_id=idempotency_id
    )
    with _once("add", "added", request):
        return ask(operations.add_credit, request)


def _deduct_credit(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.DeductCreditRequest(
        account=asked.account, amount_nano_credits=asked.amount, idempotency_id=asked.id
    )
    with _once("deduct", "deducted", request):
        deducted = ask(operations.deduct_credit, request)
    return Answer(
        document=deducted,
        text=rows_table(ACCOUNT, [deducted.account]),
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


COMMANDS: Final[Mapping[str, Command]] = {
    "accounts create": on_store(_create_account),
    "accounts show": on_store(_show_account),
    "accounts list": on_store(_list_accounts),
    "accounts suspend": on_store(_suspend_account),
    "accounts resume": on_store(_resume_account),
    "accounts delete": on_store(_delete_account),
    "credit add": on_store(_add_credit),
    "credit deduct": on_store(_deduct_credit),
}

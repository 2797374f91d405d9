"""The commands `ledger show`, `usage show` and `audit`."""

import argparse
from collections.abc import Mapping
from typing import Final

from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from service.accounts import messages
from service.accounts.asking import every_page, on_store
from service.accounts.columns import ACT, ENTRY, USAGE, rows_table
from service.accounts.operations import Operations
from service.accounts.store_commands import Command
from service.accounts.terminal import Answer, CommandError

MOST_USAGE: Final = 100_000
"""Maximum usage totals in one output."""


def _show_ledger(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ListLedgerEntriesRequest(account=asked.account)
    found = every_page(operations.list_ledger_entries, request, asked.limit)
    dated = any(entry.HasField("price_time") for entry in found.entries)
    columns = {**ENTRY, "prices from": "price_time"} if dated else ENTRY
    return Answer(document=found, text=rows_table(columns, found.entries))


def _show_audit(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ListAuditEntriesRequest(account=asked.account)
    found = every_page(operations.list_audit_entries, request, asked.limit)
    return Answer(document=found, text=rows_table(ACT, found.entries))


def _show_usage(operations: Operations, asked: argparse.Namespace) -> Answer:
    request = pb.ListUsageRequest(
        account=asked.account,
        key_name=asked.key,
        model=asked.model,
        interval=account_pb2.UsageInterval.Value(f"USAGE_INTERVAL_{asked.by.upper()}"),
        start_time=messages.timestamp(asked.since),
        end_time=messages.timestamp(asked.until),
    )
    found = every_page(operations.list_usage, request, MOST_USAGE)
    if found.next_page_token:
        raise CommandError(f"more than {MOST_USAGE} rows: use a shorter --since and --until range")
    columns = USAGE if asked.account else {"account": "account", **USAGE}
    return Answer(document=found, text=rows_table(columns, found.usage))


COMMANDS: Final[Mapping[str, Command]] = {
    "ledger show": on_store(_show_ledger),
    "usage show": on_store(_show_usage),
    "audit": on_store(_show_audit),
}

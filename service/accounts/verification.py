"""Checks stored values against the ledger and the holds: `ledger verify`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

from service.ledger.budgets import Budgets
from service.ledger.rows import HoldState
from service.ledger.schema import accounts, answers, api_keys, holds, ledger, usage_totals
from service.ledger.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A stored value that differs from the ledger or the holds."""

    account: str
    of: str
    """`balance`, `held`, `charged` (the usage totals), `answers`, `running KEY`, or what a budget
    holds: `held of day` or `held of day KEY`."""
    stored: int
    """In nano-credits; for `running`, in calls; for `answers`, in bytes."""
    recomputed: int


def differences(store: Store) -> Iterator[Difference]:
    """Recompute the stored values from the ledger and the holds, in one snapshot.

    Args:
        store: The store.

    Yields:
        Each stored value that differs.
    """
    charges = ledger.c.key_id.is_not(None)
    is_open = holds.c.state == HoldState.OPEN
    with store.reading_at_once() as connection:
        store.take_time(connection)
        balances = _sums(connection, ledger.c.account_id, sa.func.sum(ledger.c.amount))
        # A group's calls are charged to the account that pays, and counted as the group's.
        charged = _sums(
            connection,
            api_keys.c.account_id,
            sa.func.sum(-ledger.c.amount),
            charges,
            ledger.c.key_id == api_keys.c.id,
        )
        told = _sums(connection, usage_totals.c.account_id, sa.func.sum(usage_totals.c.charged))
        held = _sums(connection, holds.c.account_id, sa.func.sum(holds.c.amount), is_open)
        running = _sums(connection, holds.c.key_id, sa.func.count(), is_open)
        kept = _sums(connection, answers.c.account_id, sa.func.sum(answers.c.size))
        rows = connection.execute(
            sa.select(
                *(accounts.c.id, accounts.c.name, accounts.c.balance, accounts.c.held),
                *(accounts.c.parent_id, accounts.c.budgets, accounts.c.answer_bytes),
            )
        ).all()
        keys_found = connection.execute(
            sa.select(
                accounts.c.name.label("account"),
                *(api_keys.c.id, api_keys.c.name, api_keys.c.running),
                *(api_keys.c.account_id, api_keys.c.budgets),
            ).join(accounts, accounts.c.id == api_keys.c.account_id)
        ).all()
        counted = connection.execute(
            sa.select(holds.c.key_id, holds.c.amount, holds.c.windows).where(
                is_open, holds.c.windows.is_not(None)
            )
        ).all()
    seen = [
        (row.name, of, stored, recomputed.get(row.id, 0))
        for row in rows
        for of, stored, recomputed in (
            ("balance", row.balance, balances),
            ("held", row.held, held),
            ("charged", told.get(row.id, 0), charged),
            ("answers", row.answer_bytes, kept),
        )
    ] + [
        (row.account, f"running {row.name}", row.running, running.get(row.id, 0))
        for row in keys_found
    ]
    seen += _held(rows, keys_found, counted)
    for account, of, stored, recomputed in sorted(seen):
        if stored != recomputed:
            yield Difference(account=account, of=of, stored=stored, recomputed=recomputed)


def _held(
    rows: Sequence[Any], keys: Sequence[Any], counted: Sequence[Any]
) -> list[tuple[str, str, int, int]]:
    """Return what each budget holds, stored and recomputed from the open holds."""
    parents = {row.id: row.parent_id for row in rows}
    owners = {key.id: key.account_id for key in keys}
    held: Counter[tuple[str, int, str]] = Counter()
    """By scope and the serial of a window."""
    for hold in counted:
        scopes = [("key", hold.key_id), *_accounts(parents, owners[hold.key_id])]
        for (of, id_), serials in zip(scopes, hold.windows.split(";"), strict=True):
            for serial in filter(None, serials.split(",")):
                held[of, id_, serial] += hold.amount
    named = [(row.name, "", ("account", row.id), row.budgets) for row in rows]
    named += [(key.account, f" {key.name}", ("key", key.id), key.budgets) for key in keys]
    return [
        (account, f"held of {budget.window}{key}", budget.held, held[*scope, str(budget.serial)])
        for account, key, scope, stored in named
        if stored is not None
        for budget in msgspec.convert(stored, Budgets).of
    ]


def _accounts(parents: Mapping[int, int | None], account: int | None) -> Iterator[tuple[str, int]]:
    while account is not None:
        yield "account", account
        account = parents[account]


def _sums(
    connection: sa.Connection, by: sa.Column[Any], total: Any, *conditions: Any
) -> dict[int, int]:
    # PostgreSQL returns sums of 64-bit integers as decimals.
    found = connection.execute(sa.select(by, total).where(*conditions).group_by(by))
    return {id_: int(number) for id_, number in found}

"""Checks stored values against the ledger and the holds: `ledger verify`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.ledger.rows import HoldState
from service.ledger.schema import accounts, api_keys, holds, ledger, usage_totals
from service.ledger.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A stored value that differs from the ledger or the holds."""

    account: str
    of: str
    """`balance`, `held`, `charged` (the usage totals), or `running KEY`."""
    stored: int
    """In nano-credits; for `running`, in calls."""
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
        charged = _sums(connection, ledger.c.account_id, sa.func.sum(-ledger.c.amount), charges)
        told = _sums(connection, usage_totals.c.account_id, sa.func.sum(usage_totals.c.charged))
        held = _sums(connection, holds.c.account_id, sa.func.sum(holds.c.amount), is_open)
        running = _sums(connection, holds.c.key_id, sa.func.count(), is_open)
        rows = connection.execute(
            sa.select(accounts.c.id, accounts.c.name, accounts.c.balance, accounts.c.held)
        ).all()
        keys_found = connection.execute(
            sa.select(
                accounts.c.name.label("account"),
                *(api_keys.c.id, api_keys.c.name, api_keys.c.running),
            ).join(accounts, accounts.c.id == api_keys.c.account_id)
        ).all()
    seen = [
        (row.name, of, stored, recomputed.get(row.id, 0))
        for row in rows
        for of, stored, recomputed in (
            ("balance", row.balance, balances),
            ("held", row.held, held),
            ("charged", told.get(row.id, 0), charged),
        )
    ] + [
        (row.account, f"running {row.name}", row.running, running.get(row.id, 0))
        for row in keys_found
    ]
    for account, of, stored, recomputed in sorted(seen):
        if stored != recomputed:
            yield Difference(account=account, of=of, stored=stored, recomputed=recomputed)


def _sums(
    connection: sa.Connection, by: sa.Column[Any], total: Any, *conditions: Any
) -> dict[int, int]:
    # PostgreSQL returns sums of 64-bit integers as decimals.
    found = connection.execute(sa.select(by, total).where(*conditions).group_by(by))
    return {id_: int(number) for id_, number in found}

"""The tables in memory, with the store's way with `decide`."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import replace

from service.ledger.decisions import LARGEST_BALANCE, decide
from service.ledger.rows import (
    Account,
    Changes,
    Entry,
    Forget,
    Grant,
    Hold,
    Key,
    Operation,
    Outcome,
    Rows,
)
from tests.contract.accounts_machine.cast import ACCOUNTS, KEYS, Scope
from tests.contract.accounts_machine.checks import check
from tests.contract.accounts_machine.told_events import THRESHOLDS, ToldEvents, spent, wrong_budgets

_Row = TypeVar("_Row", Account, Key)


def _copy(row: _Row) -> _Row:
    """Return a copy, as a store returns it."""
    return replace(row) if row.budgets is None else replace(row, budgets=deepcopy(row.budgets))


@dataclass(slots=True)
class Tables:
    """The tables, with a separate copy of each row."""

    accounts: dict[int, Account] = field(
        default_factory=lambda: {row.id: _copy(row) for row in ACCOUNTS}
    )
    keys: dict[int, Key] = field(default_factory=lambda: {row.id: _copy(row) for row in KEYS})
    holds: dict[str, Hold] = field(default_factory=dict)
    ledger: list[Entry] = field(default_factory=list)
    entry_of_hold: dict[str, Entry] = field(default_factory=dict)
    grants: set[tuple[int, str]] = field(default_factory=set)
    events: ToldEvents = field(default_factory=ToldEvents)

    def apply(self, operations: Sequence[Operation], now: int) -> list[Outcome]:
        """One transaction."""
        rows = Rows()
        for operation in operations:
            for id_ in (operation.account_id, *getattr(operation, "parents", ())):
                account = self.accounts.get(id_)
                if account is not None and id_ not in rows.accounts:
                    rows.accounts[id_] = _copy(account)
            if isinstance(operation, Grant):
                named = (operation.account_id, operation.idempotency_id)
                if named in self.grants:
                    rows.grants.add(named)
                continue
            if isinstance(operation, Forget):
                raise TypeError("an answer; test_claims_machine has those")
            key = self.keys.get(operation.key_id)
            if key is not None and key.id not in rows.keys:
                rows.keys[key.id] = _copy(key)
            hold = self.holds.get(operation.hold_id)
            if hold is not None and hold.id not in rows.holds:
                rows.holds[hold.id] = replace(hold)
        before = spent(self.accounts.values(), self.keys.values())
        outcomes, changes = decide(rows, operations, now, THRESHOLDS)
        self._write(rows, changes)
        wrong = self.events.follow(changes.entries, changes.events)
        check(not wrong, wrong)
        after = spent(self.accounts.values(), self.keys.values())
        wrong = wrong_budgets(before, after, changes.events, now)
        check(not wrong, wrong)
        return outcomes

    def change(self, scope: Scope, **columns: Any) -> None:
        """Change columns of an account or a key, as an operator does."""
        of, id_ = scope
        row = self.accounts[id_] if of == "account" else self.keys[id_]
        for name, value in columns.items():
            setattr(row, name, value)

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _write(self, rows: Rows, changes: Changes) -> None:
        for account_id in changes.accounts:
            changed, account = rows.accounts[account_id], self.accounts[account_id]
            account.balance, account.held = changed.balance, changed.held
            account.budgets, account.full_balance = changed.budgets, changed.full_balance
            check(0 <= account.held <= account.balance, f"{account} is in the red")
            check(account.balance <= LARGEST_BALANCE, f"{account} is too rich")
        for key_id in changes.keys:
            taken, key = rows.keys[key_id], self.keys[key_id]
            key.requests_tat, key.tokens_tat = taken.requests_tat, taken.tokens_tat
            key.running, key.budgets = taken.running, taken.budgets
            check(key.running >= 0, f"{key} runs a negative number")
        for hold_id in changes.placed:
            check(hold_id not in self.holds, f"{hold_id} is placed twice")
            self.holds[hold_id] = replace(rows.holds[hold_id])
        for hold_id in changes.ended:
            ended, hold = rows.holds[hold_id], self.holds[hold_id]
            hold.state, hold.ended_at, hold.charged = ended.state, ended.ended_at, ended.charged
        for entry in changes.entries:
            if entry.hold_id is not None:
                check(entry.hold_id not in self.entry_of_hold, f"{entry.hold_id} has two entries")
                self.entry_of_hold[entry.hold_id] = entry
            if entry.idempotency_id is not None:
                named = (entry.account_id, entry.idempotency_id)
                check(named not in self.grants, f"{named} is granted twice")
                self.grants.add(named)
            self.ledger.append(entry)

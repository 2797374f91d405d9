"""The events of a ledger entry: the usage of a charge, and the thresholds that it crosses.

    note(changes, entry, account)         -> changes.events       pure; in the transaction of the
    note_budget(changes, entry, budgets)  -> changes.events       entry

A threshold of N percent is crossed when N percent of the balance after credit was last added are
used: by charges, or because credit was taken back. Between two additions of credit, a balance only
falls, so that each threshold is crossed at most once. Within a window, what is spent of a budget
only grows: there, too, each threshold is crossed at most once. A charge in a window that has passed
crosses none.
"""

from service.ledger.budgets import Budgets
from service.ledger.rows import Account, Changes, Entry, Event, EventKind


def note(changes: Changes, entry: Entry, account: Account) -> None:
    """Add the events of a charge, or of credit that was taken back.

    Args:
        changes: The changes, with the thresholds. If nobody wants events, nothing happens.
        entry: The entry.
        account: Its account, after it. If the balance was above `full_balance`, that is raised.
    """
    if changes.thresholds is None:
        return
    if entry.hold_id is not None:
        changes.events.append(
            Event(
                event_id=entry.hold_id,
                kind=EventKind.USAGE,
                account_id=entry.account_id,
                created_at=entry.created_at,
                due_at=entry.created_at,
                hold_id=entry.hold_id,
            )
        )
    before = account.balance - entry.amount
    # Credit that was added while no events were wanted is part of the whole, too.
    whole = account.full_balance = max(account.full_balance, before)
    for percent in crossed(whole, before, account.balance, changes.thresholds):
        by = entry.hold_id or f"{account.id}-{entry.idempotency_id}"
        changes.events.append(
            Event(
                event_id=f"credit-{percent}-{by}",
                kind=EventKind.CREDIT_THRESHOLD,
                account_id=account.id,
                created_at=entry.created_at,
                due_at=entry.created_at,
                hold_id=entry.hold_id,
                percent=percent,
                whole=whole,
                remaining=account.balance,
            )
        )


def note_budget(
    changes: Changes,
    entry: Entry,
    budgets: Budgets | None,
    counted: str,
    *,
    account_id: int,
    key_id: int | None = None,
) -> None:
    """Add the events of a charge in the budgets of an account or a key.

    Args:
        changes: The changes, with the thresholds.
        entry: The entry of the charge.
        budgets: The budgets, after the charge; None for none.
        counted: The serials of the windows in which the charge counted, if they are current.
        account_id: The account, or that of the key.
        key_id: The key; None for the budgets of the account.
    """
    if not changes.thresholds or budgets is None or not counted:
        return
    windows = counted.split(",")
    for budget in budgets.of:
        has_passed = budget.end is not None and entry.created_at >= budget.end
        if has_passed or str(budget.serial) not in windows:
            continue
        remaining = budget.limit - budget.spent
        before = remaining - entry.amount  # a charge is negative
        for percent in crossed(budget.limit, before, remaining, changes.thresholds):
            of = f"account-{account_id}" if key_id is None else f"key-{key_id}"
            changes.events.append(
                Event(
                    event_id=f"budget-{percent}-{budget.window}-{of}-{entry.hold_id}",
                    kind=EventKind.BUDGET_THRESHOLD,
                    account_id=account_id,
                    created_at=entry.created_at,
                    due_at=entry.created_at,
                    hold_id=entry.hold_id,
                    percent=percent,
                    whole=budget.limit,
                    remaining=remaining,
                    key_id=key_id,
                    window=budget.window,
                )
            )


def crossed(whole: int, before: int, after: int, thresholds: tuple[int, ...]) -> list[int]:
    """Return the percentages of a whole that are used now and were not before.

    Args:
        whole: The amount of which the thresholds are percentages.
        before: What remained of it before.
        after: What remains.
        thresholds: From 1 to 100.
    """
    used_before, used = (whole - before) * 100, (whole - after) * 100
    return [percent for percent in thresholds if used_before < whole * percent <= used]

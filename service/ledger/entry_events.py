"""The events of a ledger entry: the usage of a charge, and thresholds of credit that it crosses.

    note(changes, entry, account) -> changes.events       pure; in the transaction of the entry

A threshold of N percent is crossed when N percent of the balance after credit was last added are
used: by charges, or because credit was taken back. Between two additions of credit, a balance only
falls, so that each threshold is crossed at most once.
"""

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

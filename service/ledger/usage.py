"""Usage totals by hour, key and model, which each charge updates.

    entries of a batch -> [Total, …] -> added to the stored totals, in the same transaction

The cost of a usage query depends on the number of totals, not of entries. `ledger verify` checks
that the two agree.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from service.ledger.rows import Entry, Key

HOUR: Final = 3600 * 10**9
"""The interval of a stored total in nanoseconds: one hour, in UTC."""


class Total(msgspec.Struct, kw_only=True, gc=False):
    """A row of usage_totals, or an increment of one."""

    account_id: int
    """The account of the key, also if another one pays."""
    start: int
    """The start of the hour."""
    key_id: int
    model: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    charged: int = 0
    """Nano-credits."""


OF: Final = ("account_id", "start", "key_id", "model")
"""The columns that identify a total."""

SUMS: Final = ("requests", "prompt_tokens", "completion_tokens", "charged")
"""The columns that are summed."""


def totals(entries: Iterable[Entry], keys: Mapping[int, Key]) -> list[Total]:
    """Return the totals of charges, in the order of the first entry of each total.

    Args:
        entries: Entries of the ledger.
        keys: The keys that were charged.
    """
    found: dict[tuple[int, int, str], Total] = {}
    for entry in entries:
        if entry.key_id is None or entry.model is None:
            continue  # a grant
        start = entry.created_at - entry.created_at % HOUR
        of = start, entry.key_id, entry.model
        total = found.get(of)
        if total is None:
            total = found[of] = Total(
                account_id=keys[entry.key_id].account_id,
                start=start,
                key_id=entry.key_id,
                model=entry.model,
            )
        total.requests += 1
        total.prompt_tokens += entry.prompt_tokens
        total.completion_tokens += entry.completion_tokens
        total.charged -= entry.amount
    return list(found.values())

"""What was used by hour, key and model: sums of the ledger that grow with it.

    entries of a batch ─► [Total, …] ─► added to the stored sums, in the transaction of the entries

Asking for usage costs what its sums cost, however many entries they are of. `ledger verify` sees
whether the two agree.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from service.ledger.rows import Entry

HOUR: Final = 3600 * 10**9
"""Nanoseconds; a stored sum is of one hour, in UTC."""


class Total(msgspec.Struct, kw_only=True, gc=False):
    """A row of usage_totals, or what is added to it."""

    account_id: int
    start: int
    """When the hour begins."""
    key_id: int
    model: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    charged: int = 0
    """Nano-credits."""


OF: Final = ("account_id", "start", "key_id", "model")
"""The columns that say what a sum is of."""

SUMS: Final = ("requests", "prompt_tokens", "completion_tokens", "charged")
"""The columns that are added up."""


def totals(entries: Iterable[Entry]) -> list[Total]:
    """Sum up what is charged, in the order of the first entry of each sum."""
    found: dict[tuple[int, int, int, str], Total] = {}
    for entry in entries:
        if entry.key_id is None or entry.model is None:
            continue  # a grant
        start = entry.created_at - entry.created_at % HOUR
        of = entry.account_id, start, entry.key_id, entry.model
        total = found.get(of)
        if total is None:
            total = found[of] = Total(
                account_id=entry.account_id, start=start, key_id=entry.key_id, model=entry.model
            )
        total.requests += 1
        total.prompt_tokens += entry.prompt_tokens
        total.completion_tokens += entry.completion_tokens
        total.charged -= entry.amount
    return list(found.values())

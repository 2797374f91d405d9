"""Decides about a hold without placing it: the decision of a batch, on rows that are thrown away.

    place -> SELECT on one snapshot -> Rows -> decide, on a copy -> the outcome
                                            -> decide, by bisection -> the largest hold that fits

Nothing is locked and nothing is written. A quote costs two SELECTs and up to some 30 decisions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec
import sqlalchemy as sa

from service.ledger.decisions import decide
from service.ledger.rows import Account, Key, Place, Placed, Refused, Rows
from service.ledger.schema import accounts, api_keys
from service.ledger.statements import ACCOUNT, KEY, Wanted, columns
from service.ledger.store import Store

_Row = TypeVar("_Row", Account, Key)


class Quoted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What would become of a hold."""

    outcome: Placed | Refused
    available: int
    """The balance of the account that pays, minus the held part, in nano-credits."""
    largest: int
    """The largest size of a hold that would be placed; 0 if none."""
    now: int
    """The store's clock."""


def quote(store: Store, place: Place, sized: Callable[[int], Place], largest: int) -> Quoted:
    """Return what would become of a hold now. Blocks.

    Args:
        store: The store.
        place: The hold.
        sized: Returns the hold for a size: a larger one for a larger size.
        largest: The largest size, at least 1.

    Raises:
        StoreError: The store is away.
    """
    wanted = Wanted.of([place], sent_again=False)
    with store.reading_at_once() as connection:
        rows = Rows(
            accounts={
                row.id: row
                for row in _rows(connection, accounts, ACCOUNT, Account, wanted.accounts)
            },
            keys={row.id: row for row in _rows(connection, api_keys, KEY, Key, wanted.keys)},
        )
        now = store.now(connection)
    payer = rows.accounts.get(place.parents[-1] if place.parents else place.account_id)
    # Decisions change the rows: each gets its own copy.
    kept = _encode(rows)

    def outcome_of(place: Place) -> Placed | Refused:
        [outcome], _ = decide(_decode(kept), [place], now)
        if not isinstance(outcome, (Placed, Refused)):
            raise TypeError("not the outcome of a Place")
        return outcome

    low, high = 0, largest
    while low < high:
        middle = (low + high + 1) // 2
        if isinstance(outcome_of(sized(middle)), Placed):
            low = middle
        else:
            high = middle - 1
    return Quoted(
        outcome=outcome_of(place),
        available=0 if payer is None else payer.balance - payer.held,
        largest=low,
        now=now,
    )


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Rows).decode


def _rows(
    connection: sa.Connection,
    table: sa.Table,
    names: Sequence[str],
    kind: type[_Row],
    ids: Sequence[int],
) -> Iterator[_Row]:
    """Yield rows as the values of a batch, whose fields have the names of the columns."""
    found = connection.execute(sa.select(*columns(table, names)).where(table.c.id.in_(ids)))
    for row in found:
        yield msgspec.convert(dict(zip(names, row, strict=True)), kind)

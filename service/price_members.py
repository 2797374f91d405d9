"""The prices of a model, from the members of its table.

    [models.NAME]                          input_price, …, prices_from
    [[models.NAME.price_changes]], …       each with prices_from, and the prices that change
        -> fields -> the fields of `Model` with prices

An absent special price is the input or the output price. A change keeps every price that it does
not set.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from service.model_entries import UNSET
from service.models import (
    NANO,
    NO_SPECIAL_PRICES,
    SPECIAL_PRICES,
    PriceChange,
    SpecialPrices,
)

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND: Final = timedelta(microseconds=1)


def fields(own: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of `Model` with its prices.

    Args:
        own: The members of the model with prices, checked.
        changes: Those of its price changes.

    Raises:
        ValueError: The changes are not in the order of their times.
    """
    lists = [own]
    for change in changes:
        lists.append({**lists[-1], **{k: v for k, v in change.items() if v is not UNSET}})
    times = [_since(each["prices_from"]) for each in lists]
    if any(a is not None and b is not None and b <= a for a, b in pairwise(times)):
        raise ValueError("each prices_from must be later than the one before it")
    return {
        "input_price": _nano(own["input_price"]),
        "output_price": _nano(own["output_price"]),
        "special": _special(own),
        "prices_from": times[0],
        "price_changes": tuple(
            PriceChange(
                since=since or 0,
                input_price=_nano(each["input_price"]),
                output_price=_nano(each["output_price"]),
                special=_special(each),
            )
            for each, since in zip(lists[1:], times[1:], strict=True)
        ),
    }


def is_free(prices: Mapping[str, Any]) -> bool:
    """Return whether all prices in these fields of `Model` are zero, now and later."""
    return not (
        prices["input_price"] or prices["output_price"] or prices["special"].cost_something
    ) and all(
        not (each.input_price or each.output_price or each.special.cost_something)
        for each in prices["price_changes"]
    )


def _special(members: Mapping[str, Any]) -> SpecialPrices:
    prices = {
        name: None if (price := members[f"{name}_price"]) is UNSET else _nano(price)
        for name in SPECIAL_PRICES
    }
    found = SpecialPrices(**prices, request=_nano(members["request_price"]))
    return NO_SPECIAL_PRICES if found == NO_SPECIAL_PRICES else found


def _nano(price: Any) -> int:
    return int(Decimal(price) * NANO)


def _since(instant: Any) -> int | None:
    return None if instant is UNSET else (instant - _EPOCH) // _MICROSECOND * 1000

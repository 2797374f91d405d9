"""What tokens cost, in integer nano-credits: 10^9 of them are a credit.

price   tokens times price per million, both ways, plus the margin; rounded up once
"""

from typing import Final

from service.models import Model

_MILLION: Final = 10**6
_PERCENT: Final = 100 * 10**9
"""Margins are nano-percents: integers, like prices."""


def price(model: Model, prompt_tokens: int, completion_tokens: int) -> int:
    """Return what so many tokens cost, in nano-credits."""
    cost = prompt_tokens * model.input_price + completion_tokens * model.output_price
    return -(-cost * (_PERCENT + model.margin) // (_MILLION * _PERCENT))

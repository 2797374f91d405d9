"""The price of tokens in integer nano-credits; a credit is 10^9 nano-credits.

price   tokens times price per million, for prompt and completion, plus the margin; rounded up once
cost    the same price, and the part of it for the prompt
"""

from typing import Final, NamedTuple

from service.models import Model

_MILLION: Final = 10**6
_PERCENT: Final = 100 * 10**9
"""Nano-percent in 100 percent. Margins are integers, like prices."""


def price(model: Model, prompt_tokens: int, completion_tokens: int) -> int:
    """Return the price of tokens in nano-credits."""
    cost = prompt_tokens * model.input_price + completion_tokens * model.output_price
    return -(-cost * (_PERCENT + model.margin) // (_MILLION * _PERCENT))


class Cost(NamedTuple):
    """What a response costs, in nano-credits."""

    amount: int
    prompt: int
    """The part for the prompt; the rest is for the completion."""


def cost(model: Model, prompt_tokens: int, completion_tokens: int) -> Cost:
    """Return the price of tokens and the part of it for the prompt, rounded up alone."""
    return Cost(price(model, prompt_tokens, completion_tokens), price(model, prompt_tokens, 0))

"""The price of tokens in integer nano-credits; a credit is 10^9 nano-credits.

most    the largest price of a number of tokens, whatever they are, which is held
cost    the price of a usage, which is charged, and the part of it for the prompt

Each kind of tokens is multiplied by its price per million. The sum and the price per request, plus
the margin, are rounded up once. A kind without a price of its own has the input or output price.
"""

from typing import Final, NamedTuple

from service.metering.usage_parts import NO_PARTS, Parts
from service.models import NO_SPECIAL_PRICES, Model

_MILLION: Final = 10**6
_PERCENT: Final = 100 * 10**9
"""Nano-percent in 100 percent. Margins are integers, like prices."""


class Cost(NamedTuple):
    """What a response costs, in nano-credits."""

    amount: int
    prompt: int
    """The part for the prompt and the request; the rest is for the completion."""


def most(model: Model, prompt_tokens: int, completion_tokens: int) -> int:
    """Return the largest price of a request with so many tokens, in nano-credits."""
    into, out, request = model.input_price, model.output_price, 0
    special = model.special
    if special is not NO_SPECIAL_PRICES:
        into = max(
            into,
            special.cached_input or 0,
            special.cache_write or 0,
            special.input_audio or 0,
            special.input_image or 0,
        )
        out = max(out, special.reasoning or 0, special.output_audio or 0)
        request = special.request
    return _rounded(model, prompt_tokens * into + completion_tokens * out + request * _MILLION)


def cost(model: Model, prompt_tokens: int, completion_tokens: int, parts: Parts = NO_PARTS) -> Cost:
    """Return the price of a usage.

    Args:
        model: The model with the prices.
        prompt_tokens: All tokens of the prompt.
        completion_tokens: All tokens of the completion.
        parts: Those of them that can have prices of their own.
    """
    special = model.special
    if special is NO_SPECIAL_PRICES:
        prompt = prompt_tokens * model.input_price
        completion = completion_tokens * model.output_price
    else:
        prompt = special.request * _MILLION + _sum(
            prompt_tokens,
            model.input_price,
            (parts.cached, special.cached_input),
            (parts.written, special.cache_write),
            (parts.audio, special.input_audio),
            (parts.image, special.input_image),
        )
        completion = _sum(
            completion_tokens,
            model.output_price,
            (parts.reasoning, special.reasoning),
            (parts.spoken, special.output_audio),
        )
    return Cost(_rounded(model, prompt + completion), _rounded(model, prompt))


def _sum(tokens: int, price: int, *kinds: tuple[int, int | None]) -> int:
    """Return the price of tokens before the margin, of which some are of other kinds."""
    total = 0
    for count, special in kinds:
        taken = min(count, tokens)
        tokens -= taken
        total += taken * (price if special is None else special)
    return total + tokens * price


def _rounded(model: Model, cost: int) -> int:
    return -(-cost * (_PERCENT + model.margin) // (_MILLION * _PERCENT))

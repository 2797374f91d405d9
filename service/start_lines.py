"""One line for each model at each of its upstreams, for the operator who starts the service.

default -> llama3.1:8b at http://127.0.0.1:11434/v1, key none, price 0.05 input, 0.1 output
"""

from typing import Final

from service.models import NO_SPECIAL_PRICES, Catalogue, Model

_MOST: Final = 20
"""Maximum number of models with a line."""


def start_lines(catalogue: Catalogue) -> list[str]:
    """Return the lines, without keys. More than 20 models end with a line that counts the rest."""
    models = list(catalogue)
    lines = [_line(way, model) for model in models[:_MOST] for way in model.ways]
    if len(models) > _MOST:
        lines.append(f"and {len(models) - _MOST} more models")
    return lines


def _line(model: Model, first: Model) -> str:
    keys = [key for key in model.upstream.keys if key]
    key = "key none" if not keys else "key set" if len(keys) == 1 else f"{len(keys)} keys"
    place = model.upstream.base_url or "the built-in simulator"
    share = f"order {model.order}, weight {model.weight}, " if first.others else ""
    return f"{model.name} -> {model.upstream_model} at {place}, {key}, {share}{_price(model)}"


def _price(model: Model) -> str:
    if model.is_free:
        return "price 0"
    prices = (model.price(model.input_price), model.price(model.output_price))
    shown = [format(price.normalize(), "f") for price in prices]
    other = model.special is not NO_SPECIAL_PRICES or model.price_changes
    more = ", and other prices" if other else ""
    return f"price {shown[0]} input, {shown[1]} output per million tokens{more}"

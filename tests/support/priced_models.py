"""Models with prices, and the cost of their tokens, computed independently of the service."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from service.models import Catalogue
from service.models_document import catalogue
from tests.support.running_service import UPSTREAM_KEY

CREDIT: Final = 10**9
"""Nano-credits in a credit."""
INPUT_PRICE: Final = Decimal("0.333333333")
OUTPUT_PRICE: Final = Decimal("1.777777777")
STRICT: Final = "strict"
"""The upstream of this name has `stream_end = "strict"`."""
MARGIN: Final = Decimal("12.7")
"""Prices at which few numbers of tokens cost a whole number of nano-credits."""


def priced(**members: Any) -> dict[str, Any]:
    """Return an entry of models.toml, without its upstream."""
    return {
        "upstream_model": "sim:tokens=8",
        "default_output_tokens": 100,
        "maximum_output_tokens": 100_000,
        "input_price": INPUT_PRICE,
        "output_price": OUTPUT_PRICE,
        "margin": MARGIN,
        **members,
    }


def cost(prompt: int, completion: int, entry: Mapping[str, Any] | None = None) -> int:
    """Return the cost of tokens in nano-credits, by an entry's prices, computed in decimals."""
    prices = priced() if entry is None else entry
    into, out, margin = (
        Decimal(prices[name]) for name in ("input_price", "output_price", "margin")
    )
    credit = (prompt * into + completion * out) / 10**6 * (1 + margin / 100)
    return int((credit * CREDIT).to_integral_value(rounding="ROUND_CEILING"))


def models(
    entries: Mapping[str, Mapping[str, Any]], base_urls: Mapping[str, str], upstream: str
) -> Catalogue:
    """Return a catalogue. Entries without an upstream get the given one."""
    return catalogue(
        {
            "upstreams": {
                name: {
                    "base_url": url,
                    "api_key_variable": "KEY",
                    "stream_end": "strict" if name == STRICT else "lenient",
                }
                for name, url in base_urls.items()
            },
            "models": {name: {"upstream": upstream, **entry} for name, entry in entries.items()},
        },
        {"KEY": UPSTREAM_KEY},
    )

"""The tokens and the cost of an answer, as one line. Pure.

usage, "length", 0.00042  ->  12 + 100 tokens · 0.00042 credits · cut off at the maximum length
"""

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final

_ENDS: Final = {
    "": "",
    "stop": "",
    "length": "cut off at the maximum length",
    "content_filter": "cut off by the content filter",
}
_SUFFICIENT: Final = frozenset({"prompt", "completion", "effective_from"})
"""The members of a pricing from which the cost follows."""
_DIGITS: Final = Context(prec=6)
_FROM, _TO = Decimal("1e-12"), Decimal("1e12")


def usage_line(usage: Any, finish: str, cost: Decimal | None) -> str:
    """Return the line, or "" if nothing is known.

    Args:
        usage: The member `usage` of a completion or a chunk.
        finish: The finish reason.
        cost: Credits, or None.
    """
    parts = []
    if isinstance(usage, Mapping):
        prompt, completion = (usage.get(f"{name}_tokens") for name in ("prompt", "completion"))
        parts.append(f"{prompt} + {completion} tokens")
    if cost is not None:
        parts.append(f"{_amount(cost)} credits")
    if ended := _ENDS.get(finish, f"ended with {finish}"):
        parts.append(ended)
    return " · ".join(parts)


def cost_of(usage: Any, pricing: Any) -> Decimal | None:
    """Return the reported cost in credits, or one computed from prices; None without both.

    Args:
        usage: The member `usage` of a completion or a chunk.
        pricing: The member `pricing` of a model: credits per token, as text.
    """
    if not isinstance(usage, Mapping):
        return None
    if usage.get("cost") is not None:
        return _number(usage["cost"])
    if not isinstance(pricing, Mapping) or not _SUFFICIENT.issuperset(pricing):
        return None  # other prices can apply to some of the tokens
    total = Decimal(0)
    for name in ("prompt", "completion"):
        price, tokens = _number(pricing.get(name)), _number(usage.get(f"{name}_tokens"))
        if price is None or tokens is None:
            return None
        total += price * tokens
    return total


def pricing_of(models: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Return the pricing of a model, or of the longest pattern that its name matches, or None."""
    best: Mapping[str, Any] = {}
    for model in models:
        known = str(model.get("id", ""))
        if known == name:
            return model.get("pricing")
        is_match = known.endswith("*") and name.startswith(known[:-1])
        if is_match and len(known) > len(str(best.get("id", ""))):
            best = model
    return best.get("pricing")


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    is_sensible = number == 0 or _FROM <= number < _TO if number.is_finite() else False
    return number if is_sensible else None


def _amount(cost: Decimal) -> str:
    return f"{_DIGITS.create_decimal(cost).normalize():f}"

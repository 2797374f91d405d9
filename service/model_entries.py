"""The members of the tables of a document of models: their allowed values, and their defaults.

[models.NAME]      MODEL, and WAY in each table of its `upstreams`
[upstreams.NAME]   UPSTREAM
of both            the members of a dialect, as in `dialect_document`
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from process.settings import base_url
from service.dialect_document import ENTRIES
from service.model_names import is_name
from service.models import OUTPUT_LIMITS, SPECIAL_PRICES, TOOL_NAMES, UNKNOWN_MEMBERS

_FIRST_YEAR: Final = 1970
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

_CREATED: Final = 1741737600
"""The default of `created`: 2025-03-12, the release of the built-in model's weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """One member of a table of a document of models."""

    allowed: str
    accepts: Callable[[Any], bool]
    default: Any = None
    """The value of an absent member; None if the member is required."""


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and is_name(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000_000


def _is_price(value: Any) -> bool:
    return (
        isinstance(value, int | Decimal)
        and not isinstance(value, bool)
        and Decimal(value).is_finite()
        and 0 <= value <= 1_000_000
        and Decimal(value) == round(Decimal(value), 9)  # exact for any number of digits
    )


def _is_instant(value: Any) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None and value.year >= _FIRST_YEAR


def _is_members(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_name(name) and name not in _INDISPENSABLE for name in value
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_variable(value: Any) -> bool:
    return isinstance(value, str) and _VARIABLE.fullmatch(value) is not None


def _is_base_url(value: Any) -> bool:
    try:
        return isinstance(value, str) and base_url(value) != ""
    except ValueError:
        return False


UNSET: Final = "unset"
"""The value of an absent price, which falls back to another one."""
_MOST_CHANGES: Final = 100

_PRICE: Final = ModelEntry(
    allowed="credits per million tokens, from 0 to 1000000, with at most 9 decimals",
    accepts=_is_price,
    default=0,
)
_SPECIAL_PRICE: Final = ModelEntry(allowed=_PRICE.allowed, accepts=_is_price, default=UNSET)
_PRICES_FROM: Final = "a date and time with its offset, such as 2026-12-01T00:00:00Z"

PRICES: Final[Mapping[str, ModelEntry]] = {
    "input_price": _PRICE,
    "output_price": _PRICE,
    **{f"{name}_price": _SPECIAL_PRICE for name in SPECIAL_PRICES},
    "request_price": ModelEntry(
        allowed="credits per request, from 0 to 1000000, with at most 9 decimals",
        accepts=_is_price,
        default=0,
    ),
    "prices_from": ModelEntry(allowed=_PRICES_FROM, accepts=_is_instant, default=UNSET),
}
"""The prices of a model, and the time from which they hold."""

PRICE_CHANGE: Final[Mapping[str, ModelEntry]] = {
    name: ModelEntry(
        allowed=entry.allowed,
        accepts=entry.accepts,
        default=None if name == "prices_from" else UNSET,
    )
    for name, entry in PRICES.items()
}
"""Later prices. An absent one stays what it was before."""

_COUNT: Final = "an integer from 1 to 10000000"
ABSENT: Final = "absent"
"""The value of some absent members."""
MOST_WAYS: Final = 16
"""Maximum upstreams of a model."""
MOST_KEYS: Final = 16
"""Maximum keys of an upstream."""
_INDISPENSABLE: Final = frozenset({"model", "messages"})

_OF_BOTH: Final = {
    "output_limit": ModelEntry(
        allowed='"max_tokens" or "max_completion_tokens"',
        accepts=lambda value: value in OUTPUT_LIMITS,
        default="",
    ),
    "output_limit_excess": ModelEntry(
        allowed='"reject" or "clamp"',
        accepts=lambda value: value in ("reject", "clamp"),
        default="",
    ),
    "tool_names": ModelEntry(
        allowed='"any" or "openai"', accepts=lambda value: value in TOOL_NAMES, default=""
    ),
    **{
        name: ModelEntry(allowed=entry.allowed, accepts=entry.accepts, default=ABSENT)
        for name, entry in ENTRIES.items()
    },
}
"""The members that a model has from its upstream unless its own entry sets them."""

MODEL: Final[Mapping[str, ModelEntry]] = {
    "upstream": ModelEntry(allowed="the name of an upstream", accepts=_is_name),
    "upstreams": ModelEntry(
        allowed=f"an array of 1 to {MOST_WAYS} tables with an upstream each",
        accepts=lambda value: isinstance(value, list) and 1 <= len(value) <= MOST_WAYS,
        default=ABSENT,
    ),
    "upstream_model": ModelEntry(allowed="the model's name at the upstream", accepts=_is_name),
    # If absent, a free model has none.
    "default_output_tokens": ModelEntry(allowed=_COUNT, accepts=_is_count, default=0),
    "maximum_output_tokens": ModelEntry(allowed=_COUNT, accepts=_is_count),
    **PRICES,
    "price_changes": ModelEntry(
        allowed="an array of tables, each with prices_from and prices",
        accepts=lambda value: isinstance(value, list) and len(value) <= _MOST_CHANGES,
        default=(),
    ),
    "margin": ModelEntry(
        allowed="a percentage from 0 to 1000000, with at most 9 decimals",
        accepts=_is_price,
        default=0,
    ),
    # If absent, the maximum of all templates.
    "template_tokens": ModelEntry(allowed=_COUNT, accepts=_is_count, default=0),
    "message_tokens": ModelEntry(allowed=_COUNT, accepts=_is_count, default=0),
    "attachment_tokens": ModelEntry(allowed=_COUNT, accepts=_is_count, default=16384),
    # If absent, the smaller of ATTACHMENT_ESTIMATE and attachment_tokens.
    "attachment_estimate": ModelEntry(allowed=_COUNT, accepts=_is_count, default=0),
    "refused_members": ModelEntry(
        allowed="an array of names of members, without model and messages",
        accepts=_is_members,
        default=(),
    ),
    "allowed_members": ModelEntry(
        allowed="an array of names of members, or of paths without indexes",
        accepts=lambda value: _is_names(value) and not any("[" in name for name in value),
        default=(),
    ),
    # If absent, "forward" for a free model, otherwise "harmless".
    "unknown_members": ModelEntry(
        allowed='"harmless", "forward" or "refuse"',
        accepts=lambda value: value in UNKNOWN_MEMBERS,
        default="",
    ),
    # If absent, all types for a free model, otherwise none.
    "allowed_tools": ModelEntry(
        allowed="an array of types of tools", accepts=_is_names, default=False
    ),
    **_OF_BOTH,
    "context_length": ModelEntry(allowed=_COUNT, accepts=_is_count, default=0),
    "owned_by": ModelEntry(allowed="a name", accepts=_is_name, default="chatcompletion"),
    "created": ModelEntry(
        allowed="seconds since the Unix epoch",
        accepts=lambda value: type(value) is int and 0 <= value < 2**53,
        default=_CREATED,
    ),
}

WAY: Final[Mapping[str, ModelEntry]] = {
    "upstream": ModelEntry(allowed="the name of an upstream", accepts=_is_name),
    "upstream_model": ModelEntry(
        allowed="the model's name at the upstream", accepts=_is_name, default=ABSENT
    ),
    "weight": ModelEntry(
        allowed="an integer from 1 to 1000",
        accepts=lambda value: _is_count(value) and value <= 1000,
        default=1,
    ),
    "order": ModelEntry(
        allowed="an integer from 0 to 9",
        accepts=lambda value: type(value) is int and 0 <= value <= 9,
        default=0,
    ),
}

UPSTREAM: Final[Mapping[str, ModelEntry]] = {
    "base_url": ModelEntry(
        allowed="an http:// or https:// address without query", accepts=_is_base_url, default=""
    ),
    "api_key_variable": ModelEntry(
        allowed="the name of an environment variable such as OPENAI_API_KEY, not the key itself",
        accepts=_is_variable,
        default="",
    ),
    "api_key_variables": ModelEntry(
        allowed=f"an array of 1 to {MOST_KEYS} names of environment variables such as "
        "OPENAI_API_KEY, not the keys themselves",
        accepts=lambda value: (
            isinstance(value, list)
            and 1 <= len(value) <= MOST_KEYS
            and all(map(_is_variable, value))
            and len({*value}) == len(value)
        ),
        default=(),
    ),
    "max_calls": ModelEntry(allowed=_COUNT, accepts=_is_count, default=0),
    # If absent, that of the service; 0 is one, too.
    "max_waiting": ModelEntry(
        allowed="an integer from 0 to 10000000",
        accepts=lambda value: _is_count(value) or (type(value) is int and value == 0),
        default=ABSENT,
    ),
    "simulator": ModelEntry(
        allowed="true or false", accepts=lambda value: isinstance(value, bool), default=False
    ),
    **_OF_BOTH,
}

"""The valid values of operators' fields: names, amounts, limits, times. For RPCs and commands.

NAME.accepts("acme") -> True       "Must be " + NAME.allowed -> the error text
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final
from zoneinfo import available_timezones

from chatcompletion.default_messages import quoted
from chatcompletion.v1 import account_pb2
from service import model_names
from service.ledger.budgets import is_time_zone

LONGEST_NAME: Final = 128
LONGEST_MODEL: Final = 256
LONGEST_IDENTITY: Final = 512
MOST_MODELS: Final = 100
_MOST_SHOWN: Final = 10
"""Maximum names of models in an error."""
LARGEST_LIMIT: Final = 10**9
LARGEST_AMOUNT: Final = 10**18
"""Maximum amount in nano-credits: a billion credits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldRule:
    """The rule for one kind of value."""

    allowed: str
    """The allowed values, as the end of the sentence "Must be …"."""
    accepts: Callable[[Any], bool]
    quotes: bool = False
    """Whether errors quote the value, which is a text and never a secret."""

    def expected(self, value: Any) -> str:
        """Return "be …" with the allowed values and, if it is quoted, the value found."""
        return f"be {self.allowed}{f', but got {quoted(value)}' if self.quotes else ''}"


def _is_text(value: str, longest: int) -> bool:
    return 0 < len(value) <= longest and value.isprintable() and value.strip() == value


def _is_models(value: Sequence[str]) -> bool:
    return (
        0 < len(value) <= MOST_MODELS
        and len(set(value)) == len(value)
        and all(_is_text(name, LONGEST_MODEL) for name in value)
    )


NAME: Final = FieldRule(
    allowed="1 to 128 printable characters, without a space at either end",
    accepts=lambda value: _is_text(value, LONGEST_NAME),
)
"""Of an account or a key that exists."""
_NEW_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
NEW_NAME: Final = FieldRule(
    allowed="1 to 128 characters of a-z, 0-9, '.', '_' and '-', with a letter or digit first",
    accepts=lambda value: _NEW_NAME.fullmatch(value) is not None,
    quotes=True,
)
"""Of a new account or key. Names that differ only in case, or look alike, would be mistaken for
each other; one with a hyphen first would be an option of a command."""
IDEMPOTENCY_ID: Final = NAME
IDENTITY: Final = FieldRule(
    allowed="1 to 512 printable characters, without a space at either end",
    accepts=lambda value: _is_text(value, LONGEST_IDENTITY),
)
MODEL: Final = FieldRule(
    allowed="1 to 256 printable characters, without a space at either end",
    accepts=lambda value: _is_text(value, LONGEST_MODEL),
)
MODELS: Final = FieldRule(
    allowed="1 to 100 different names of models, each of 1 to 256 printable characters",
    accepts=_is_models,
)
LIMIT: Final = FieldRule(
    allowed="an integer from 1 to 1000000000", accepts=lambda value: 1 <= value <= LARGEST_LIMIT
)
AMOUNT: Final = FieldRule(
    allowed="an integer of nano-credits from 1 to 10^18",
    accepts=lambda value: 1 <= value <= LARGEST_AMOUNT,
)
_LIMITS: Final = [field.name for field in account_pb2.KeyLimits.DESCRIPTOR.fields]
PATHS_OF_LIMITS: Final = FieldRule(
    allowed=f"different fields of limits: {', '.join(_LIMITS)}",
    accepts=lambda value: len(set(value)) == len(value) and set(value).issubset(_LIMITS),
)
INSTANT: Final = FieldRule(
    allowed="a time from 1970 to 2261", accepts=lambda value: 0 <= value < 291 * 31_556_952 * 10**9
)
"""In nanoseconds since the Unix epoch, within 64 bits."""
LONGEST_GRACE: Final = 90 * 86_400 * 10**9
"""Nanoseconds."""
GRACE: Final = FieldRule(
    allowed="a duration from 0 to 90 days", accepts=lambda value: 0 <= value <= LONGEST_GRACE
)
"""In nanoseconds."""
SECRET: Final = FieldRule(
    allowed="a secret, or its first 14 characters", accepts=lambda value: 14 <= len(value) <= 256
)
PAGE_SIZE: Final = FieldRule(allowed="an integer of at least 0", accepts=lambda value: value >= 0)


def unknown_model(names: Iterable[str], known: Collection[str]) -> str:
    """Return the error for the first of some models that does not exist; "" if all do.

    Args:
        names: The names and patterns of models that a key can use.
        known: Those of the models that exist.
    """
    unknown = model_names.unknown(names, known)
    if not unknown:
        return ""
    near = get_close_matches(unknown[0], known, n=3)
    hint = f" Did you mean {' or '.join(map(quoted, near))}?" if near else ""
    shown = ", ".join(sorted(known)[:_MOST_SHOWN])
    more = f" and {len(known) - _MOST_SHOWN} more" if len(known) > _MOST_SHOWN else ""
    return f"There is no model {quoted(unknown[0])}.{hint} The models are {shown}{more}."


TIME_ZONE: Final = FieldRule(
    allowed="the name of a time zone, such as Europe/Berlin", accepts=is_time_zone, quotes=True
)


def no_time_zone(name: str) -> str:
    """Return the rest of the sentence "Must …" about a name that is no time zone."""
    text = f"{TIME_ZONE.expected(name)}."
    near = difflib.get_close_matches(name, sorted(available_timezones()), n=1)
    return f"{text} Did you mean {quoted(near[0])}?" if near else text


def later_than(now: int) -> FieldRule:
    """Return the rule for a time after `now`, both in nanoseconds since the Unix epoch."""
    return FieldRule(allowed="in the future", accepts=lambda value: value > now)

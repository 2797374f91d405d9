"""The document of models: the tables of a models file, checked entry by entry.

    [upstreams.NAME]                      [models.NAME]
    base_url         = "https://…"        upstream              = "NAME"
    api_key_variable = "…"                upstream_model        = "vendor/model"
    or                                    default_output_tokens = 1024
    simulator        = true               maximum_output_tokens = 8192
                                          …, as in _MODEL and _UPSTREAM below

Pure: turns a document into a `Catalogue`, or raises a `CatalogueError` that names the wrong entry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, cast
from urllib.parse import urlsplit

from process.settings import Parser, base_url, header_key
from service.models import (
    ATTACHMENT_ESTIMATE,
    NANO,
    OUTPUT_LIMITS,
    STREAM_ENDS,
    TOOL_NAMES,
    UNKNOWN_MEMBERS,
    Catalogue,
    Model,
    Upstream,
)

_CREATED: Final = 1741737600
"""The default of `created`: 2025-03-12, the release of the built-in model's weights."""


class CatalogueError(ValueError):
    """The document of models is wrong. The text names the entry and the allowed values."""


# -------------------------------------------------------------------------- members of entries


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """One member of a table of the document."""

    allowed: str
    accepts: Callable[[Any], bool]
    default: Any = None
    """The value of an absent member; None if the member is required."""


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable()


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


def _is_members(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_name(name) and name not in _INDISPENSABLE for name in value
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_base_url(value: Any) -> bool:
    try:
        return isinstance(value, str) and base_url(value) != ""
    except ValueError:
        return False


_PRICE: Final = _Entry(
    allowed="credits per million tokens, from 0 to 1000000, with at most 9 decimals",
    accepts=_is_price,
    default=0,
)
_COUNT: Final = "an integer from 1 to 10000000"
_INDISPENSABLE: Final = frozenset({"model", "messages"})

_MODEL: Final[Mapping[str, _Entry]] = {
    "upstream": _Entry(allowed="the name of an upstream", accepts=_is_name),
    "upstream_model": _Entry(allowed="the model's name at the upstream", accepts=_is_name),
    "default_output_tokens": _Entry(allowed=_COUNT, accepts=_is_count),
    "maximum_output_tokens": _Entry(allowed=_COUNT, accepts=_is_count),
    "output_limit": _Entry(
        allowed='"max_tokens" or "max_completion_tokens"',
        accepts=lambda value: value in OUTPUT_LIMITS,
        default="max_tokens",
    ),
    "input_price": _PRICE,
    "output_price": _PRICE,
    "margin": _Entry(
        allowed="a percentage from 0 to 1000000, with at most 9 decimals",
        accepts=_is_price,
        default=0,
    ),
    "attachment_tokens": _Entry(allowed=_COUNT, accepts=_is_count, default=16384),
    # If absent, the smaller of ATTACHMENT_ESTIMATE and attachment_tokens.
    "attachment_estimate": _Entry(allowed=_COUNT, accepts=_is_count, default=0),
    "refused_members": _Entry(
        allowed="an array of names of members, without model and messages",
        accepts=_is_members,
        default=(),
    ),
    "allowed_members": _Entry(
        allowed="an array of names of members, or of paths without indexes",
        accepts=lambda value: _is_names(value) and not any("[" in name for name in value),
        default=(),
    ),
    # If absent, "forward" for a free model, otherwise "harmless".
    "unknown_members": _Entry(
        allowed='"harmless", "forward" or "refuse"',
        accepts=lambda value: value in UNKNOWN_MEMBERS,
        default="",
    ),
    # If absent, all types for a free model, otherwise none.
    "allowed_tools": _Entry(allowed="an array of types of tools", accepts=_is_names, default=False),
    "tool_names": _Entry(
        allowed='"any" or "openai"', accepts=lambda value: value in TOOL_NAMES, default="any"
    ),
    "owned_by": _Entry(allowed="a name", accepts=_is_name, default="chatcompletion"),
    "created": _Entry(
        allowed="seconds since the Unix epoch",
        accepts=lambda value: type(value) is int and 0 <= value < 2**53,
        default=_CREATED,
    ),
}

_UPSTREAM: Final[Mapping[str, _Entry]] = {
    "base_url": _Entry(
        allowed="an http:// or https:// address without query", accepts=_is_base_url, default=""
    ),
    "api_key_variable": _Entry(
        allowed="the name of an environment variable", accepts=_is_name, default=""
    ),
    "simulator": _Entry(
        allowed="true or false", accepts=lambda value: isinstance(value, bool), default=False
    ),
    "stream_end": _Entry(
        allowed='"lenient" or "strict"',
        accepts=lambda value: value in STREAM_ENDS,
        default="lenient",
    ),
}


# ------------------------------------------------------------------------------- the document


def catalogue(document: Mapping[str, Any], environment: Mapping[str, str]) -> Catalogue:
    """Read the document of models.

    Args:
        document: The parsed TOML, fractions as `Decimal`.
        environment: The environment with the keys of the upstreams.

    Raises:
        CatalogueError: An entry is unknown, missing or not allowed.
    """
    unknown = document.keys() - {"upstreams", "models"}
    if unknown:
        raise CatalogueError(f"{min(unknown)}: the tables are upstreams and models")
    upstreams = {
        name: _upstream(name, members, environment)
        for name, members in _tables(document, "upstreams").items()
    }
    models = {
        name: _model(name, members, upstreams)
        for name, members in _tables(document, "models").items()
    }
    return Catalogue(models=MappingProxyType(models))


def _tables(document: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    tables = document.get(kind)
    if not isinstance(tables, dict) or not tables:
        raise CatalogueError(f"{kind}: there must be at least one [{kind}.NAME]")
    for name in tables:
        if not _is_name(name):
            raise CatalogueError(f"{kind}: a name has 1 to 256 printable characters")
    return tables


def _members(place: str, table: Any, entries: Mapping[str, _Entry]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise CatalogueError(f"{place} must be a table")
    unknown = table.keys() - entries.keys()
    if unknown:
        raise CatalogueError(f"{place}.{min(unknown)}: the members are {', '.join(entries)}")
    members: dict[str, Any] = {}
    for name, entry in entries.items():
        if name not in table and entry.default is None:
            raise CatalogueError(f"{place}.{name} is missing: it must be {entry.allowed}")
        members[name] = table.get(name, entry.default)
        if name in table and not entry.accepts(members[name]):
            raise CatalogueError(f"{place}.{name} must be {entry.allowed}")
    return members


def _upstream(name: str, table: Any, environment: Mapping[str, str]) -> Upstream:
    place = f"upstreams.{name}"
    members = _members(place, table, _UPSTREAM)
    if members["simulator"] == bool(members["base_url"]):
        raise CatalogueError(f"{place} must have either base_url or simulator = true")
    url = members["base_url"].rstrip("/")
    if url and not urlsplit(url).path:
        url += "/v1"
    variable = members["api_key_variable"]
    try:
        key = header_key(environment.get(variable, "") if variable else "")
    except ValueError:
        allowed = cast("Parser[str]", header_key).allowed
        raise CatalogueError(f"{place}: {variable} must be {allowed}") from None
    return Upstream(name=name, base_url=url, api_key=key, stream_end=members["stream_end"])


def _model(name: str, table: Any, upstreams: Mapping[str, Upstream]) -> Model:
    place = f"models.{name}"
    members = _members(place, table, _MODEL)
    if members["upstream"] not in upstreams:
        raise CatalogueError(f"{place}.upstream must be one of {', '.join(upstreams)}")
    if members["default_output_tokens"] > members["maximum_output_tokens"]:
        raise CatalogueError(f"{place}.default_output_tokens must not exceed the maximum")
    if members["attachment_estimate"] > members["attachment_tokens"]:
        raise CatalogueError(f"{place}.attachment_estimate must not exceed attachment_tokens")
    estimate = members.pop("attachment_estimate")
    tools = members.pop("allowed_tools")
    return Model(
        name=name,
        upstream=upstreams[members.pop("upstream")],
        input_price=int(Decimal(members.pop("input_price")) * NANO),
        output_price=int(Decimal(members.pop("output_price")) * NANO),
        margin=int(Decimal(members.pop("margin")) * NANO),
        attachment_estimate=estimate or min(ATTACHMENT_ESTIMATE, members["attachment_tokens"]),
        refused_members=frozenset(members.pop("refused_members")),
        allowed_members=frozenset(members.pop("allowed_members")),
        unknown_members=members.pop("unknown_members") or None,
        allowed_tools=None if tools is False else frozenset(tools),
        **members,
    )

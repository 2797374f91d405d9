"""The document of models: the tables of a models file, checked entry by entry.

    [upstreams.NAME]                      [models.NAME]
    base_url         = "https://…"        upstream              = "NAME"
    api_key_variable = "…"                upstream_model        = "vendor/model"
    or                                    default_output_tokens = 1024
    simulator        = true               maximum_output_tokens = 8192
                                          …, as in `model_entries`

Pure: turns a document into a `Catalogue`, or raises a `CatalogueError` that names the wrong entry.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, cast
from urllib.parse import urlsplit

from process.found_values import found
from process.settings import Parser, header_key
from service.dialect_document import ENTRIES, DialectError, dialect
from service.model_entries import (
    ABSENT,
    MODEL,
    PRICE_CHANGE,
    PRICES,
    UPSTREAM,
    WAY,
    ModelEntry,
)
from service.model_names import WILDCARD, is_name
from service.models import (
    ATTACHMENT_ESTIMATE,
    NANO,
    Catalogue,
    Model,
    ToolNames,
    Upstream,
)
from service.price_members import fields, is_free
from service.upstream_dialect import OPENAI, Dialect

_COMPLETIONS: Final = "/chat/completions"
"""The path that requests add to a base URL."""

_USUAL_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
"""Matches no key: keys have no capital words joined by underscores."""


class CatalogueError(ValueError):
    """The document of models is wrong.

    Args:
        lines: A line for each error, with the entry, the value found and the allowed values.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def catalogue(document: Mapping[str, Any], environment: Mapping[str, str]) -> Catalogue:
    """Read the document of models.

    Args:
        document: The parsed TOML, fractions as `Decimal`.
        environment: The environment with the keys of the upstreams.

    Raises:
        CatalogueError: Entries are unknown, missing or not allowed. It has a line for each.
    """
    wrong = [
        f"{name} is unknown. The tables are upstreams and models"
        for name in sorted(document.keys() - {"upstreams", "models"})
    ]
    upstreams: dict[str, Upstream] = {}
    for name, members in _tables(document, "upstreams", wrong):
        # Models can name an upstream that is wrong: one error is enough.
        upstreams[name] = Upstream(name=name, base_url="", api_key="")
        try:
            upstreams[name] = _upstream(name, members, environment)
        except CatalogueError as error:
            wrong += error.lines
    if not upstreams:  # every model would be wrong
        raise CatalogueError(*wrong)
    models: dict[str, Model] = {}
    for name, members in _tables(document, "models", wrong):
        try:
            models[name] = _ways(name, members, upstreams, environment)
        except CatalogueError as error:
            wrong += error.lines
    if wrong:
        raise CatalogueError(*wrong)
    return Catalogue(models=MappingProxyType(models))


def key_variables(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the variables that hold the keys of the upstreams of a document, also a wrong one."""
    upstreams = document.get("upstreams")
    tables = upstreams.values() if isinstance(upstreams, dict) else ()
    names: list[Any] = []
    for table in tables:
        if isinstance(table, dict):
            variables = table.get("header_variables")
            named = variables.values() if isinstance(variables, dict) else ()
            several = table.get("api_key_variables")
            names += [*named, table.get("api_key_variable")]
            names += several if isinstance(several, list) else ()
    return frozenset(name for name in names if isinstance(name, str))


def _tables(document: Mapping[str, Any], kind: str, wrong: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the tables with valid names, and add a line for every other one."""
    tables = document.get(kind)
    if not isinstance(tables, dict) or not tables:
        wrong.append(f"{kind}: there must be at least one [{kind}.NAME]")
        return
    for name, members in tables.items():
        if is_name(name):
            yield name, members
        else:
            wrong.append(f"{kind}: a name has 1 to 256 printable characters; found {found(name)}")


def _members(place: str, table: Any, entries: Mapping[str, ModelEntry]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise CatalogueError(f"{place} must be a table")
    wrong = [
        _unknown_member(place, name, entries) for name in sorted(table.keys() - entries.keys())
    ]
    members: dict[str, Any] = {}
    for name, entry in entries.items():
        if name not in table and entry.default is None:
            wrong.append(f"{place}.{name} is missing: it must be {entry.allowed}")
        members[name] = table.get(name, entry.default)
        if name in table and table[name] is not ABSENT and not entry.accepts(members[name]):
            # A key can stand where its variable belongs.
            quoted = found(members[name], is_secret=name.startswith("api_key_"))
            wrong.append(f"{place}.{name} must be {entry.allowed}; found {quoted}")
    if wrong:
        raise CatalogueError(*wrong)
    return members


def _unknown_member(place: str, name: str, entries: Mapping[str, ModelEntry]) -> str:
    [nearest] = get_close_matches(name, entries, n=1) or [""]
    hint = f"Did you mean {nearest}? " if nearest else ""
    return f"{place}.{name} is unknown. {hint}The members are {', '.join(entries)}"


def _upstream(name: str, table: Any, environment: Mapping[str, str]) -> Upstream:
    place = f"upstreams.{name}"
    members = _members(place, table, UPSTREAM)
    if members["simulator"] == bool(members["base_url"]):
        raise CatalogueError(f"{place} must have either base_url or simulator = true")
    several: Sequence[str] = members["api_key_variables"]
    if several and members["api_key_variable"]:
        raise CatalogueError(f"{place} must have either api_key_variable or api_key_variables")
    if several:
        first, *others = (_key(place, "api_key_variables", name, environment) for name in several)
    else:
        first = _key(place, "api_key_variable", members["api_key_variable"], environment)
        others = []
    return Upstream(
        name=name,
        base_url=_endless(members["base_url"]),
        api_key=first,
        other_keys=tuple(dict.fromkeys(key for key in others if key != first)),
        dialect=_dialect(place, members, OPENAI, environment),
        output_limit=members["output_limit"] or "max_tokens",
        clamps_limit=members["output_limit_excess"] == "clamp",
        tool_names=members["tool_names"] or "any",
        max_calls=members["max_calls"] or None,
        max_waiting=None if members["max_waiting"] is ABSENT else members["max_waiting"],
    )


def _dialect(
    place: str, members: dict[str, Any], base: Dialect, environment: Mapping[str, str]
) -> Dialect:
    """Return the dialect in the members of a table, and remove them."""
    own = {name: members.pop(name) for name in ENTRIES}
    present = {name: value for name, value in own.items() if value is not ABSENT}
    try:
        return dialect(present, base, environment)
    except DialectError as error:
        raise CatalogueError(f"{place}.header_variables: {error}") from None


def _endless(url: str) -> str:
    """Return a base URL as requests extend it: without the path of completions, with some path."""
    url = url.rstrip("/")
    base = url.removesuffix(_COMPLETIONS)
    if base != url:
        return base.rstrip("/")
    return f"{url}/v1" if url and not urlsplit(url).path else url


def _key(place: str, member: str, variable: str, environment: Mapping[str, str]) -> str:
    """Return the key of an upstream, from the variable that its entry names; "" for none."""
    if not variable:
        return ""
    text = environment.get(variable, "")
    if not text:
        if not _USUAL_VARIABLE.fullmatch(variable):  # it can be a key that was pasted here
            raise CatalogueError(
                f"{place}.{member} must be the name of a variable that is set, such as "
                f"OPENAI_API_KEY, not the key itself; found {found(variable, is_secret=True)}"
            )
        raise CatalogueError(
            f"{place}.{member} names {variable}, which is not set. "
            f"Write: export {variable}=KEY, or remove {member} if the upstream needs no key"
        )
    try:
        return header_key(text)
    except ValueError:
        allowed = cast("Parser[str]", header_key).allowed
        quoted = found(text, is_secret=True)
        raise CatalogueError(f"{place}: {variable} must be {allowed}; found {quoted}") from None


def _ways(
    name: str, table: Any, upstreams: Mapping[str, Upstream], environment: Mapping[str, str]
) -> Model:
    """Return a model with one upstream or several."""
    if not isinstance(table, dict) or not isinstance(table.get("upstreams"), list):
        return _model(name, table, upstreams, environment)
    place = f"models.{name}"
    if "upstream" in table:
        raise CatalogueError(f"{place} must have either upstream or upstreams")
    if not MODEL["upstreams"].accepts(table["upstreams"]):
        raise CatalogueError(f"{place}.upstreams must be {MODEL['upstreams'].allowed}")
    ways: list[Model] = []
    for index, entry in enumerate(table["upstreams"]):
        own = _members(f"{place}.upstreams[{index}]", entry, WAY)
        weight, order = own.pop("weight"), own.pop("order")
        named = {member: value for member, value in own.items() if value is not ABSENT}
        way = _model(name, {**table, "upstreams": ABSENT, **named}, upstreams, environment)
        ways.append(replace(way, weight=weight, order=order))
    # A request is checked before its upstream is chosen, so that it must suit each of them.
    strict: ToolNames = "openai" if any(way.tool_names == "openai" for way in ways) else "any"
    clamps = all(way.clamps_limit for way in ways)
    first, *others = (replace(way, tool_names=strict, clamps_limit=clamps) for way in ways)
    return replace(first, others=tuple(others))


def _model(
    name: str, table: Any, upstreams: Mapping[str, Upstream], environment: Mapping[str, str]
) -> Model:
    place = f"models.{name}"
    if name.endswith(WILDCARD) and isinstance(table, dict):
        table = {"upstream_model": WILDCARD, **table}
    members = _members(place, table, MODEL)
    del members["upstreams"]
    _check_pattern(place, name, members["upstream_model"])
    if members["upstream"] not in upstreams:
        raise CatalogueError(
            f"{place}.upstream must be one of {', '.join(upstreams)}; "
            f"found {found(members['upstream'])}"
        )
    prices = _prices(place, members)
    imposes = bool(members["default_output_tokens"])
    if not imposes:
        if not is_free(prices):
            raise CatalogueError(
                f"{place}.default_output_tokens is missing: a model with a price needs it"
            )
        members["default_output_tokens"] = members["maximum_output_tokens"]
    if members["default_output_tokens"] > members["maximum_output_tokens"]:
        raise CatalogueError(f"{place}.default_output_tokens must not exceed the maximum")
    if members["attachment_estimate"] > members["attachment_tokens"]:
        raise CatalogueError(f"{place}.attachment_estimate must not exceed attachment_tokens")
    estimate = members.pop("attachment_estimate")
    tools = members.pop("allowed_tools")
    context_length = members.pop("context_length")
    upstream = upstreams[members.pop("upstream")]
    excess = members.pop("output_limit_excess")
    return Model(
        name=name,
        upstream=upstream,
        output_limit=members.pop("output_limit") or upstream.output_limit,
        dialect=_dialect(place, members, upstream.dialect, environment),
        imposes_limit=imposes,
        clamps_limit=upstream.clamps_limit if excess == "" else excess == "clamp",
        tool_names=members.pop("tool_names") or upstream.tool_names,
        **prices,
        margin=int(Decimal(members.pop("margin")) * NANO),
        attachment_estimate=estimate or min(ATTACHMENT_ESTIMATE, members["attachment_tokens"]),
        refused_members=frozenset(members.pop("refused_members")),
        allowed_members=frozenset(members.pop("allowed_members")),
        unknown_members=members.pop("unknown_members") or None,
        allowed_tools=None if tools is False else frozenset(tools),
        context_length=context_length or None,
        template_tokens=members.pop("template_tokens") or None,
        message_tokens=members.pop("message_tokens") or None,
        **members,
    )


def _prices(place: str, members: dict[str, Any]) -> dict[str, Any]:
    """Return the prices in the members of a model as fields of `Model`, and remove them."""
    own = {name: members.pop(name) for name in PRICES}
    changes = [
        _members(f"{place}.price_changes[{number}]", table, PRICE_CHANGE)
        for number, table in enumerate(members.pop("price_changes"))
    ]
    try:
        return fields(own, changes)
    except ValueError as error:
        raise CatalogueError(f"{place}.price_changes: {error}") from None


def _check_pattern(place: str, name: str, upstream_model: str) -> None:
    if WILDCARD in name.removesuffix(WILDCARD):
        raise CatalogueError(f"{place}: only the last character of a name can be *")
    if name.endswith(WILDCARD) and upstream_model.count(WILDCARD) != 1:
        raise CatalogueError(
            f"{place}.upstream_model must have one *, which stands for what the * of the name "
            f'matches; found {found(upstream_model)}. Write for example: upstream_model = "*"'
        )

"""The document of models: the tables of a models file, checked entry by entry.

    [upstreams.NAME]                      [models.NAME]
    base_url         = "https://…"        upstream              = "NAME"
    api_key_variable = "…"                upstream_model        = "vendor/model"
    or                                    default_output_tokens = 1024
    simulator        = true               maximum_output_tokens = 8192
                                          …, as in `model_entries`

Pure: turns a document into a `Catalogue`, or raises a `CatalogueError` with a line for each error.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        with _added_to(wrong):
            upstreams[name] = _upstream(name, members, environment)
    if not upstreams:  # every model would be wrong
        raise CatalogueError(*wrong)
    models: dict[str, Model] = {}
    for name, members in _tables(document, "models", wrong):
        with _added_to(wrong):
            models[name] = _ways(name, members, upstreams, environment)
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


@contextmanager
def _added_to(wrong: list[str]) -> Iterator[None]:
    """Add the lines of a `CatalogueError` to others, and continue."""
    try:
        yield
    except CatalogueError as error:
        wrong += error.lines


def _members(
    place: str, table: Any, entries: Mapping[str, ModelEntry], wrong: list[str]
) -> dict[str, Any]:
    """Return the valid members of a table with their defaults, and add a line for every other one.

    The rules for several members check those that are valid, so that all errors are listed.
    """
    if not isinstance(table, dict):
        raise CatalogueError(f"{place} must be a table")
    wrong += [
        _unknown_member(place, name, entries) for name in sorted(table.keys() - entries.keys())
    ]
    members: dict[str, Any] = {}
    for name, entry in entries.items():
        value = table.get(name, entry.default)
        if name not in table and entry.default is None:
            wrong.append(f"{place}.{name} is missing: it must be {entry.allowed}")
        elif name in table and value is not ABSENT and not entry.accepts(value):
            # A key can stand where its variable belongs.
            quoted = found(value, is_secret=name.startswith("api_key_"))
            wrong.append(f"{place}.{name} must be {entry.allowed}; found {quoted}")
        else:
            members[name] = value
    return members


def _all_members(place: str, table: Any, entries: Mapping[str, ModelEntry]) -> dict[str, Any]:
    """Return the members of a table with their defaults, all of which must be valid."""
    wrong: list[str] = []
    members = _members(place, table, entries, wrong)
    if wrong:
        raise CatalogueError(*wrong)
    return members


def _unknown_member(place: str, name: str, entries: Mapping[str, ModelEntry]) -> str:
    [nearest] = get_close_matches(name, entries, n=1) or [""]
    hint = f"Did you mean {nearest}? " if nearest else ""
    return f"{place}.{name} is unknown. {hint}The members are {', '.join(entries)}"


def _upstream(name: str, table: Any, environment: Mapping[str, str]) -> Upstream:
    place = f"upstreams.{name}"
    wrong: list[str] = []
    members = _members(place, table, UPSTREAM, wrong)
    has_both = {"simulator", "base_url"} <= members.keys()
    is_spelt = table.keys() <= UPSTREAM.keys()  # otherwise, one can be the misspelt member
    if has_both and is_spelt and members["simulator"] == bool(members["base_url"]):
        wrong.append(f"{place} must have either base_url or simulator = true")
    one: str = members.get("api_key_variable", "")
    several: Sequence[str] = members.get("api_key_variables", ())
    if several and one:
        wrong.append(f"{place} must have either api_key_variable or api_key_variables")
    member = "api_key_variables" if several else "api_key_variable"
    keys: list[str] = []
    for variable in several or (one,):
        with _added_to(wrong):
            keys.append(_key(place, member, variable, environment))
    own = OPENAI
    with _added_to(wrong):
        own = _dialect(place, members, OPENAI, environment)
    if wrong:
        raise CatalogueError(*wrong)
    first, *others = keys
    return Upstream(
        name=name,
        base_url=_endless(members["base_url"]),
        api_key=first,
        other_keys=tuple(dict.fromkeys(key for key in others if key != first)),
        dialect=own,
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
    own = {name: members.pop(name, ABSENT) for name in ENTRIES}
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
    wrong: list[str] = []
    for index, entry in enumerate(table["upstreams"]):
        with _added_to(wrong):
            own = _all_members(f"{place}.upstreams[{index}]", entry, WAY)
            weight, order = own.pop("weight"), own.pop("order")
            named = {member: value for member, value in own.items() if value is not ABSENT}
            way = _model(name, {**table, "upstreams": ABSENT, **named}, upstreams, environment)
            ways.append(replace(way, weight=weight, order=order))
    if wrong:
        raise CatalogueError(*dict.fromkeys(wrong))  # the ways share the members of the model
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
    wrong: list[str] = []
    members = _members(place, table, MODEL, wrong)
    members.pop("upstreams", None)
    wrong += _faults(place, name, members, upstreams)
    prices: dict[str, Any] = {}
    with _added_to(wrong):
        prices = _prices(place, members)
    imposes = members.get("default_output_tokens") != 0
    if not imposes and prices and not is_free(prices):
        wrong.append(f"{place}.default_output_tokens is missing: a model with a price needs it")
    base = upstreams[members["upstream"]].dialect if not wrong else OPENAI
    own = base
    with _added_to(wrong):
        own = _dialect(place, members, base, environment)
    if wrong:
        raise CatalogueError(*wrong)
    if not imposes:
        members["default_output_tokens"] = members["maximum_output_tokens"]
    estimate = members.pop("attachment_estimate")
    tools = members.pop("allowed_tools")
    context_length = members.pop("context_length")
    upstream = upstreams[members.pop("upstream")]
    excess = members.pop("output_limit_excess")
    return Model(
        name=name,
        upstream=upstream,
        output_limit=members.pop("output_limit") or upstream.output_limit,
        dialect=own,
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


def _faults(
    place: str, name: str, members: Mapping[str, Any], upstreams: Mapping[str, Upstream]
) -> Iterator[str]:
    """Yield a line for each rule of a model that its valid members break."""
    if WILDCARD in name.removesuffix(WILDCARD):
        yield f"{place}: only the last character of a name can be *"
    target = members.get("upstream_model", WILDCARD)
    if name.endswith(WILDCARD) and target.count(WILDCARD) != 1:
        yield (
            f"{place}.upstream_model must have one *, which stands for what the * of the name "
            f'matches; found {found(target)}. Write for example: upstream_model = "*"'
        )
    if "upstream" in members and members["upstream"] not in upstreams:
        quoted = found(members["upstream"])
        yield f"{place}.upstream must be one of {', '.join(upstreams)}; found {quoted}"
    if _exceeds(members, "default_output_tokens", "maximum_output_tokens"):
        yield f"{place}.default_output_tokens must not exceed the maximum"
    if _exceeds(members, "attachment_estimate", "attachment_tokens"):
        yield f"{place}.attachment_estimate must not exceed attachment_tokens"


def _exceeds(members: Mapping[str, Any], name: str, maximum: str) -> bool:
    """Return whether a member exceeds another one. An invalid one exceeds nothing."""
    return {name, maximum} <= members.keys() and bool(members[name] > members[maximum])


def _prices(place: str, members: dict[str, Any]) -> dict[str, Any]:
    """Return the prices in the members of a model as fields of `Model`, and remove them.

    If some are invalid, return none.
    """
    if not {*PRICES, "price_changes"} <= members.keys():
        return {}
    own = {name: members.pop(name) for name in PRICES}
    changes = [
        _all_members(f"{place}.price_changes[{number}]", table, PRICE_CHANGE)
        for number, table in enumerate(members.pop("price_changes"))
    ]
    try:
        return fields(own, changes)
    except ValueError as error:
        raise CatalogueError(f"{place}.price_changes: {error}") from None

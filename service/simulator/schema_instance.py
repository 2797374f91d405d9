"""A value that satisfies a JSON Schema.

    schema --flatten--> one level without $ref and allOf, its anyOf/oneOf set aside as groups
           --choose---> the first branch of each group, the first type, that can be satisfied
           --fill-----> scalar, array or object, whose members are schemas again

Honoured: boolean schemas, type (also lists), const, enum, $ref into the schema (recursive too),
allOf, anyOf, oneOf, properties, required, additionalProperties, patternProperties, propertyNames,
minProperties, maxProperties, items, prefixItems, minItems, maxItems, uniqueItems, minLength,
maxLength, pattern (simple ones), format, minimum, maximum, exclusiveMinimum, exclusiveMaximum,
multipleOf. The branches of a oneOf are taken to exclude each other. The keywords in `REFUSED` are
refused rather than ignored; annotations are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from service.simulator import scalar_instance
from service.simulator.pattern_instance import UnreadablePatternError, matching
from service.simulator.scalar_instance import UnsatisfiableError

__all__ = ["UnsatisfiableError", "instance"]

REFUSED = (
    "not",
    "if",
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "$dynamicRef",
    "$recursiveRef",
)
MAX_DEPTH = 24
"""Objects and arrays in one another; deeper, only what has no members is made."""
MAX_STEPS = 20_000
"""Schemas looked at for one value."""
GENEROUS_DEPTH = 3
"""Up to here optional members and items are made too."""

_SCALARS = ("null", "boolean", "integer", "number", "string")
_KEYWORDS_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties", "minProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}

Schema = Any


def instance(schema: Schema) -> Any:
    """Return a value that satisfies the schema, always the same for the same schema.

    Raises:
        UnsatisfiableError: none does, or the schema goes beyond what is honoured.
    """
    failure = UnsatisfiableError("nothing satisfies it")
    for frugal in (False, True):
        try:
            return _Maker(root=schema, frugal=frugal).make(schema, 0, 0)
        except UnsatisfiableError as exc:
            failure = exc
        except RecursionError:
            failure = UnsatisfiableError("it is nested too deeply")
        except (TypeError, AttributeError, ValueError):
            failure = UnsatisfiableError("a keyword has a value of the wrong type")
    raise failure


@dataclass(slots=True)
class _Level:
    """One schema without references."""

    keywords: dict[str, Any] = field(default_factory=dict)
    groups: list[list[Schema]] = field(default_factory=list)
    """Of each group one branch has to hold as well."""


@dataclass(slots=True)
class _Maker:
    root: Schema
    frugal: bool = False
    """Leave out what may be left out, everywhere."""
    steps: int = 0

    def make(self, schema: Schema, depth: int, variant: int) -> Any:
        return self.choose(self.flatten(schema, 0), depth, variant)

    # ---- flatten ----

    def flatten(self, schema: Schema, references: int) -> _Level:
        self.steps += 1
        if self.steps > MAX_STEPS or references > 100:
            raise UnsatisfiableError("it is too large or refers to itself without end")
        if schema is True:
            return _Level()
        if not isinstance(schema, dict):
            raise UnsatisfiableError("a schema is false" if schema is False else "not a schema")
        for keyword in REFUSED:
            if keyword in schema:
                raise UnsatisfiableError(f"the simulator does not honour '{keyword}'")
        level = _Level(keywords={k: v for k, v in schema.items() if k not in _STRUCTURE})
        for keyword in ("anyOf", "oneOf"):
            if isinstance(schema.get(keyword), list):
                level.groups.append(schema[keyword])
        if "$ref" in schema:
            level = _both(level, self.flatten(self.referred(schema["$ref"]), references + 1))
        for part in schema.get("allOf") or ():
            level = _both(level, self.flatten(part, references + 1))
        return level

    def referred(self, reference: Any) -> Schema:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise UnsatisfiableError("a $ref leads out of the schema")
        found = self.root
        for step in unquote(reference[1:]).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise UnsatisfiableError("a $ref leads nowhere")
        return found

    # ---- choose ----

    def choose(self, level: _Level, depth: int, variant: int) -> Any:
        if not level.groups:
            return self.fill(level.keywords, depth, variant)
        rest = _Level(keywords=level.keywords, groups=level.groups[1:])
        branches = level.groups[0]
        if self.frugal or depth > GENEROUS_DEPTH:
            branches = sorted(branches, key=_complexity)
        failure = UnsatisfiableError("an anyOf or oneOf is empty")
        for branch in branches:
            try:
                return self.choose(_both(rest, self.flatten(branch, 0)), depth, variant)
            except UnsatisfiableError as exc:
                failure = exc
        raise failure

    def fill(self, keywords: dict[str, Any], depth: int, variant: int) -> Any:
        if "const" in keywords:
            return scalar_instance.listed(keywords, [keywords["const"]], variant)
        if "enum" in keywords:
            return scalar_instance.listed(keywords, keywords["enum"], variant)
        failure = UnsatisfiableError("no type is left")
        for kind in self.types(keywords, depth):
            try:
                if kind == "object":
                    return self.make_object(keywords, depth, variant)
                if kind == "array":
                    return self.make_array(keywords, depth, variant)
                return scalar_instance.scalar(kind, keywords, variant)
            except UnsatisfiableError as exc:
                failure = exc
        raise failure

    def types(self, keywords: dict[str, Any], depth: int) -> list[str]:
        kinds = keywords.get("type")
        if kinds is None:
            for kind, telling in _KEYWORDS_OF_TYPE.items():
                if any(keyword in keywords for keyword in telling):
                    return [kind]
            return ["string"]
        kinds = list(kinds) if isinstance(kinds, list) else [kinds]
        if self.frugal or depth > GENEROUS_DEPTH:
            return sorted(kinds, key=lambda kind: kind not in _SCALARS)
        return sorted(kinds, key=lambda kind: kind == "null")

    # ---- fill ----

    def make_object(self, keywords: dict[str, Any], depth: int, variant: int) -> dict[str, Any]:
        if depth >= MAX_DEPTH:
            raise UnsatisfiableError("its values nest too deeply")
        properties: dict[str, Schema] = keywords.get("properties") or {}
        required: list[str] = list(dict.fromkeys(keywords.get("required") or ()))
        least = keywords.get("minProperties", 0)
        most = keywords.get("maxProperties", MAX_STEPS)
        if len(required) > most or least > most:
            raise UnsatisfiableError("maxProperties is too small")
        made: dict[str, Any] = {}
        optional = [name for name in properties if name not in required]
        generous = not self.frugal and depth < GENEROUS_DEPTH
        wanted = most if generous else least
        wanted = min(most, max(wanted, least)) - len(required)
        for name in [*properties, *(name for name in required if name not in properties)]:
            if name in required:
                schema = properties.get(name, keywords.get("additionalProperties", True))
                made[name] = self.make(schema, depth + 1, variant)
            elif name in optional and wanted > 0:
                try:
                    made[name] = self.make(properties[name], depth + 1, variant)
                    wanted -= 1
                except UnsatisfiableError:
                    continue
        for number in range(MAX_STEPS):
            if len(made) >= least:
                return made
            name, schema = self.further_member(keywords, number)
            if name not in made and name not in properties:
                made[name] = self.make(schema, depth + 1, variant)
        raise UnsatisfiableError("minProperties is too large")

    def further_member(self, keywords: dict[str, Any], number: int) -> tuple[str, Schema]:
        by_pattern = keywords.get("patternProperties")
        if by_pattern:
            pattern, schema = next(iter(by_pattern.items()))
            try:
                return matching(pattern, variant=number), schema
            except UnreadablePatternError as exc:
                raise UnsatisfiableError(str(exc)) from None
        name = f"property_{number + 1}"
        if "propertyNames" in keywords:
            name = self.make(keywords["propertyNames"], MAX_DEPTH, number)
        schema = keywords.get("additionalProperties", True)
        if schema is False or not isinstance(name, str):
            raise UnsatisfiableError("minProperties asks for more members than are allowed")
        return name, schema

    def make_array(self, keywords: dict[str, Any], depth: int, variant: int) -> list[Any]:
        if depth >= MAX_DEPTH:
            raise UnsatisfiableError("its values nest too deeply")
        first: list[Schema] = keywords.get("prefixItems") or []
        rest: Schema = keywords.get("items", True)
        if isinstance(rest, list):  # Drafts before 2020-12 spell prefixItems so.
            first, rest = rest, keywords.get("additionalItems", True)
        least = keywords.get("minItems", 0)
        most = keywords.get("maxItems", MAX_STEPS)
        if least > min(most, MAX_STEPS):
            raise UnsatisfiableError("minItems is too large")
        generous = not self.frugal and depth < GENEROUS_DEPTH
        wanted = min(most, max(least, len(first) or 1)) if generous else least
        made: list[Any] = []
        seen: set[str] = set()
        unique = keywords.get("uniqueItems") is True
        for attempt in range(variant, variant + 4 * wanted + 64):
            if len(made) == wanted:
                break
            schema = first[len(made)] if len(made) < len(first) else rest
            try:
                item = self.make(schema, depth + 1, attempt)
            except UnsatisfiableError:
                if len(made) >= least:
                    break
                raise
            key = json.dumps(item, sort_keys=True)
            if not unique or key not in seen:
                made.append(item)
                seen.add(key)
        if len(made) < least:
            raise UnsatisfiableError("there are not as many different items as minItems asks for")
        return made


_STRUCTURE = frozenset({"$ref", "allOf", "anyOf", "oneOf", "$defs", "definitions"})


def _complexity(schema: Schema) -> int:
    """Tell what to try first where a value should soon come to an end."""
    if not isinstance(schema, dict):
        return 0
    if "const" in schema or "enum" in schema:
        return 0
    if "$ref" in schema or "anyOf" in schema or "oneOf" in schema or "allOf" in schema:
        return 2
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return 0 if any(kind in _SCALARS for kind in kinds) else 1


def _both(one: _Level, other: _Level) -> _Level:
    """Return the level that satisfies both."""
    keywords = dict(one.keywords)
    for keyword, value in other.keywords.items():
        if keyword in keywords:
            merge = _MERGES.get(keyword)
            keywords[keyword] = value if merge is None else merge(keywords[keyword], value)
        else:
            keywords[keyword] = value
    return _Level(keywords=keywords, groups=one.groups + other.groups)


def _all_of(one: Schema, other: Schema) -> Schema:
    return False if one is False or other is False else {"allOf": [one, other]}


def _properties(one: dict[str, Schema], other: dict[str, Schema]) -> dict[str, Schema]:
    shared = {name: _all_of(one[name], other[name]) for name in one if name in other}
    return {**one, **other, **shared}


def _prefix(one: list[Schema], other: list[Schema]) -> list[Schema]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    shared = [_all_of(a, b) for a, b in zip(longer, shorter, strict=False)]
    return shared + longer[len(shorter) :]


_MERGES: dict[str, Callable[[Any, Any], Any]] = {
    **scalar_instance.MERGES,
    "properties": _properties,
    "patternProperties": _properties,
    "required": lambda one, other: [*one, *other],
    "items": _all_of,
    "additionalProperties": _all_of,
    "propertyNames": _all_of,
    "prefixItems": _prefix,
    "uniqueItems": lambda one, other: one or other,
    "minItems": max,
    "minProperties": max,
    "maxItems": min,
    "maxProperties": min,
}

"""Generates a value that satisfies a JSON Schema, in the subset of OpenAI's strict outputs.

    schema -> follow $ref -> the first listed value, anyOf branch or type that can be satisfied

No library does this: those that generate instances (jsf, hypothesis-jsonschema, exrex, rstr,
sre_yield) draw at random or without a bound, so that a small schema can stall them, and none has
had a release for two years. This module returns the same value for the same schema at a bounded
cost. It rejects the keywords that strict outputs reject, and ignores words that are not keywords of
JSON Schema.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from operator import ge, gt, le, lt
from typing import Any
from urllib.parse import unquote

from service.simulator.pattern_instance import UnsatisfiableError, matching

MAX_COST, STEP_COST = 300_000, 10
"""Maximum cost of a value: the characters of its JSON, plus `STEP_COST` per visited schema."""
GENEROUS_DEPTH, MAX_DEPTH = 3, 24
"""Maximum nesting before a $ref is followed only as far as the value needs to end, and the maximum
nesting for that."""

_HONOURED = (
    "$ref additionalProperties anyOf const enum exclusiveMaximum exclusiveMinimum format items "
    "maxItems maxLength maximum minItems minLength minimum multipleOf pattern properties required "
    "type"
)
_REFUSED = (
    "$dynamicRef $recursiveRef additionalItems allOf contains dependencies dependentRequired "
    "dependentSchemas if maxProperties minProperties not oneOf patternProperties prefixItems "
    "propertyNames unevaluatedItems unevaluatedProperties uniqueItems"
)
HONOURED, REFUSED = frozenset(_HONOURED.split()), frozenset(_REFUSED.split())
_FORMATS = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "duration": "P1D",
    "email": "simulated@example.com",
    "hostname": "host.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "00:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_SCALARS = {"boolean": bool, "integer": int, "null": type(None), "string": str}
_TYPES: dict[str, Any] = {**_SCALARS, "array": list, "number": (int, float), "object": dict}
_BOUNDS = {"minimum": ge, "exclusiveMinimum": gt, "maximum": le, "exclusiveMaximum": lt}


def instance(schema: Any) -> Any:
    """Return a value that satisfies the schema; the same schema always has the same value.

    Raises:
        UnsatisfiableError: No value does, or the schema is outside the supported subset.
    """
    try:
        return _Maker(root=schema).make(schema, GENEROUS_DEPTH + MAX_DEPTH)
    except (RecursionError, OverflowError):
        raise UnsatisfiableError("it or its value is too large") from None
    except (TypeError, AttributeError, ValueError, LookupError, ArithmeticError):
        raise UnsatisfiableError("a $ref or another keyword has a wrong value") from None


@dataclass(slots=True)
class _Maker:
    """Generates one value. `room` is the remaining depth of nested objects and arrays."""

    root: Any
    left: int = MAX_COST

    def charge(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise OverflowError

    def make(self, schema: Any, room: int) -> Any:
        keywords: dict[str, Any] = {} if schema is True else schema
        self.charge(STEP_COST + len(keywords))
        for keyword in sorted(REFUSED.intersection(keywords)):
            raise UnsatisfiableError(f"'{keyword}' is not supported")
        if "$ref" in keywords:
            _alone(keywords, "$ref")
            target = self.referred(keywords["$ref"])
            rooms = range(MAX_DEPTH) if room == MAX_DEPTH + 1 else [room]
            return _first(rooms, lambda enough: self.make(target, enough))
        if "anyOf" in keywords:
            _alone(keywords, "anyOf")
            return _first(keywords["anyOf"], lambda branch: self.make(branch, room))
        kinds = keywords.get("type", "object" if "properties" in keywords else "string")
        kinds = (
            [kinds] if isinstance(kinds, str) else sorted(dict.fromkeys(kinds), key="null".__eq__)
        )
        if "const" in keywords or "enum" in keywords:
            return self.listed(keywords, kinds if "type" in keywords else [*_TYPES])
        return _first(kinds, lambda kind: self.of_type(kind, keywords, room))

    def referred(self, reference: str) -> Any:
        self.charge(len(reference))
        start, *steps = unquote(reference).split("/")
        if start != "#":
            raise UnsatisfiableError(f"the $ref '{reference}' leads out of it")
        found = self.root
        for step in steps:
            key = step.replace("~1", "/").replace("~0", "~")
            found = found[int(key) if isinstance(found, list) else key]
        return found

    def listed(self, keywords: dict[str, Any], kinds: list[str]) -> Any:
        _alone(keywords, "const", "enum", "type")
        self.charge(len(keywords.get("enum", ())))
        for value in [keywords["const"]] if "const" in keywords else keywords["enum"]:
            self.charge(len(json.dumps(value)))
            if any(_is(value, kind) for kind in kinds) and value in keywords.get("enum", [value]):
                return value
        raise UnsatisfiableError("no value of an enum or const is allowed")

    def of_type(self, kind: str, keywords: dict[str, Any], room: int) -> Any:
        if kind in ("array", "object"):
            if room <= 0:
                raise UnsatisfiableError("its values nest too deeply")
            return (self.array if kind == "array" else self.object)(keywords, room)
        if kind in ("integer", "number"):
            self.charge(STEP_COST * len(keywords))
            made: Any = _number(keywords, whole=kind == "integer")
        elif kind == "string":
            made = self.string(keywords)
        else:
            made = {"boolean": True, "null": None}[kind]
        self.charge(len(json.dumps(made)))
        return made

    def object(self, keywords: dict[str, Any], room: int) -> dict[str, Any]:
        properties, required = keywords.get("properties", {}), set(keywords.get("required", ()))
        self.charge(len(properties) + len(required))
        made = {}
        for name in [*properties, *sorted(required - properties.keys())]:
            self.charge(len(name))
            if name in required:
                member = properties.get(name, keywords.get("additionalProperties", True))
                made[name] = self.within(member, room)
            elif room > MAX_DEPTH:
                with suppress(UnsatisfiableError):
                    made[name] = self.within(properties[name], room)
        return made

    def array(self, keywords: dict[str, Any], room: int) -> list[Any]:
        least, most = keywords.get("minItems", 0), keywords.get("maxItems", MAX_COST)
        if least > most:
            raise UnsatisfiableError("minItems is larger than maxItems or too large")
        wanted = min(most, max(least, 1)) if room > MAX_DEPTH else least
        made: list[Any] = []
        while len(made) < wanted:
            made.append(self.within(keywords.get("items", True), room))
        return made

    def within(self, schema: Any, room: int) -> Any:
        return self.make(schema, room if room == MAX_DEPTH + 1 else room - 1)

    def string(self, keywords: dict[str, Any]) -> str:
        shortest, longest = keywords.get("minLength", 0), keywords.get("maxLength", MAX_COST)
        self.charge(shortest)
        if "pattern" in keywords:
            text = matching(keywords["pattern"], charge=self.charge)
        elif "format" not in keywords:
            text = "simulated".ljust(shortest, "x")[:longest]
        elif keywords["format"] in _FORMATS:
            text = _FORMATS[keywords["format"]]
        else:
            raise UnsatisfiableError(f"the format '{keywords['format']}' is not supported")
        if not shortest <= len(text) <= longest:
            raise UnsatisfiableError("no string of the allowed length was found")
        return text


def _number(keywords: dict[str, Any], *, whole: bool) -> int | float:
    """Return 0 or a number near a bound: the first that satisfies the keywords."""
    bounds = {name: _exactly(keywords[name]) for name in _BOUNDS if name in keywords}
    if keywords.get("multipleOf", 1) <= 0:
        raise UnsatisfiableError("multipleOf is not positive")
    step = _exactly(keywords.get("multipleOf", int(whole)))  # 0 allows every number.
    step = Fraction(step.numerator) if whole else step
    near = [bound // step * step if step else bound for bound in bounds.values()]
    steps = (number + times * (step or 1) for number in near for times in (0, 1, -1))
    middles = ((one + other) / 2 for one in near for other in near)
    for candidate in (Fraction(0), *steps, *middles):
        made = candidate.numerator if candidate.denominator == 1 else float(candidate)
        exact = _exactly(made)  # A float can be rounded onto a bound.
        fits = all(_BOUNDS[name](exact, bounds[name]) for name in bounds)
        if fits and not (step and exact % step):
            return made
    raise UnsatisfiableError("no number was found within the bounds")


def _exactly(value: Any) -> Fraction:
    """Return the exact number of the decimal text, so that 0.1 is a tenth."""
    if not _is(value, "number") or abs(value) > 2**64:
        raise UnsatisfiableError("a bound is not a number of up to 2^64")
    return Fraction(repr(value))


def _first(options: Iterable[Any], make: Callable[[Any], Any]) -> Any:
    """Return the value for the first option that can be satisfied."""
    failure = UnsatisfiableError("a list of alternatives is empty")
    for option in options:
        try:
            return make(option)
        except UnsatisfiableError as exc:
            failure = exc
    raise failure


def _alone(keywords: dict[str, Any], *together: str) -> None:
    for keyword in sorted(HONOURED.difference(together).intersection(keywords)):
        raise UnsatisfiableError(f"'{keyword}' beside '{together[0]}' is not supported")


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (isinstance(value, bool) is (kind == "boolean"))

"""A second reading of JSON Schema, which shares no code with what it judges."""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: not isinstance(v, bool) and isinstance(v, int | float) and v == int(v),
    "number": lambda v: not isinstance(v, bool) and isinstance(v, int | float),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}

NUMBERS: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "minimum": lambda number, bound: number >= bound,
    "maximum": lambda number, bound: number <= bound,
    "exclusiveMinimum": lambda number, bound: number > bound,
    "exclusiveMaximum": lambda number, bound: number < bound,
    "multipleOf": lambda number, bound: number % bound == 0,
}
SIZES = (
    (str, "minLength", "maxLength"),
    (list, "minItems", "maxItems"),
    (dict, "minProperties", "maxProperties"),
)


def violations(schema: Any, value: Any, root: Any = None, path: str = "$") -> list[str]:
    """What in the value breaks the schema; empty where nothing does."""
    if schema is True:
        return []
    if schema is False:
        return [f"{path}: nothing is allowed"]
    root = schema if root is None else root
    broken = [keyword for keyword, holds in _demands(schema, value, root) if not holds]
    found = [f"{path}: {keyword} of {schema!r} is broken by {value!r}" for keyword in broken]
    for part, item, step in _parts(schema, value, root):
        found += violations(part, item, root, path + step)
    return found


def _demands(schema: Any, value: Any, root: Any) -> Iterator[tuple[str, bool]]:
    """Each keyword that speaks of the value itself, and whether it holds."""

    def satisfied(parts: list[Any]) -> int:
        return sum(not violations(part, value, root) for part in parts)

    if "anyOf" in schema:
        yield "anyOf", satisfied(schema["anyOf"]) >= 1
    if "oneOf" in schema:
        yield "oneOf", satisfied(schema["oneOf"]) == 1
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        yield "type", any(TYPES[kind](value) for kind in kinds)
    if "enum" in schema:
        yield "enum", any(_equal(value, item) for item in schema["enum"])
    yield "const", "const" not in schema or _equal(value, schema["const"])
    if isinstance(value, int | float) and not isinstance(value, bool):
        for keyword, holds in NUMBERS.items():
            if keyword in schema:
                yield keyword, holds(Decimal(str(value)), Decimal(str(schema[keyword])))
    if isinstance(value, str):
        yield "pattern", re.search(schema.get("pattern", ""), value) is not None
    for kind, shortest, longest in SIZES:
        if isinstance(value, kind):
            yield shortest, len(value) >= schema.get(shortest, 0)
            yield longest, len(value) <= schema.get(longest, len(value))
    if isinstance(value, list) and schema.get("uniqueItems"):
        pairs = [(a, b) for i, a in enumerate(value) for b in value[:i]]
        yield "uniqueItems", not any(_equal(a, b) for a, b in pairs)
    if isinstance(value, dict):
        yield "required", all(name in value for name in schema.get("required", []))


def _parts(schema: Any, value: Any, root: Any) -> Iterator[tuple[Any, Any, str]]:
    """Each further schema, the value that it is about, and the step to that value."""
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            target = target[int(name) if isinstance(target, list) else name]
        yield target, value, ""
    for part in schema.get("allOf", []):
        yield part, value, ""
    if isinstance(value, list):
        prefix, rest = schema.get("prefixItems", []), schema.get("items", True)
        if isinstance(rest, list):
            prefix, rest = rest, schema.get("additionalItems", True)
        for index, item in enumerate(value):
            part = prefix[index] if index < len(prefix) else rest
            yield part, item, f"[{index}]"
    if isinstance(value, dict):
        patterns = schema.get("patternProperties", {}).items()
        for name, member in value.items():
            declared = [schema["properties"][name]] if name in schema.get("properties", {}) else []
            declared += [part for pattern, part in patterns if re.search(pattern, name)]
            for part in declared or [schema.get("additionalProperties", True)]:
                yield part, member, f".{name}"
            yield schema.get("propertyNames", True), name, f".{name}"


def _equal(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) is isinstance(other, bool)

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from service.simulator.schema_instance import REFUSED, UnsatisfiableError, instance
from tests.support.examples import examples
from tests.unit.simulator.schema_checker import violations

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "left", "right", "children"],
            "additionalProperties": False,
        }
    },
}

SATISFIABLE: dict[str, Any] = {
    "true": True,
    "empty": {},
    "type list": {"type": ["null", "string"]},
    "only null": {"type": ["null"]},
    "const object": {"const": {"a": [1, None]}},
    "const beside a type": {"type": "string", "const": "x"},
    "enum filtered by type": {"type": "integer", "enum": ["a", 1.5, 3]},
    "enum filtered by a bound": {"allOf": [{"enum": [1, 2, 3]}, {"minimum": 3}]},
    "enums in common": {"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]},
    "integer": {"type": "integer", "minimum": 7, "maximum": 7},
    "exclusive": {"type": "integer", "exclusiveMinimum": 7, "exclusiveMaximum": 9},
    "both kinds of bound": {"type": "number", "minimum": 1, "exclusiveMinimum": 1},
    "negative": {"type": "integer", "maximum": -1},
    "multiple": {"type": "number", "multipleOf": 0.1, "minimum": 0.25},
    "integer multiple of a fraction": {"type": "integer", "multipleOf": 1.5, "minimum": 1},
    "open interval": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "open below": {"type": "number", "exclusiveMaximum": -3.5},
    "short string": {"type": "string", "maxLength": 2},
    "long string": {"type": "string", "minLength": 40, "maxLength": 40},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$", "minLength": 9},
    "free array": {"type": "array"},
    "array of a length": {"type": "array", "items": {"type": "integer"}, "minItems": 5},
    "no items": {"type": "array", "maxItems": 0},
    "impossible items": {"type": "array", "items": False},
    "unique integers": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 4},
        "minItems": 5,
        "uniqueItems": True,
    },
    "unique enum": {
        "type": "array",
        "items": {"enum": ["a", "b", "c"]},
        "minItems": 3,
        "uniqueItems": True,
    },
    "unique strings": {
        "type": "array",
        "items": {"type": "string", "maxLength": 3},
        "minItems": 4,
        "uniqueItems": True,
    },
    "unique objects": {
        "type": "array",
        "items": {"properties": {"n": {"type": "number"}}, "required": ["n"]},
        "minItems": 3,
        "uniqueItems": True,
    },
    "tuple": {"prefixItems": [{"type": "integer"}, {"const": "x"}], "items": {"type": "null"}},
    "tuple of an older draft": {
        "type": "array",
        "items": [{"type": "integer"}, {"const": "x"}],
        "additionalItems": {"type": "null"},
        "minItems": 3,
    },
    "tuples merged": {
        "allOf": [
            {"prefixItems": [{"type": "integer"}]},
            {"prefixItems": [{"minimum": 3}, {"const": 1}]},
        ],
    },
    "impossible further items": {
        "type": "array",
        "prefixItems": [{"const": 1}, False],
        "maxItems": 5,
    },
    "constants merged": {"allOf": [{"const": 1}, {"const": 1.0}]},
    "multiples merged": {
        "allOf": [{"multipleOf": 4}, {"multipleOf": 6}, {"minimum": 1}],
        "type": "number",
    },
    "types merged": {"allOf": [{"type": ["number", "null"]}, {"type": ["integer", "string"]}]},
    "patterns merged": {"allOf": [{"pattern": "^ab$"}, {"pattern": "^ab$"}]},
    "names by a pattern": {
        "type": "object",
        "propertyNames": {"pattern": "^k[0-9]$"},
        "minProperties": 3,
        "additionalProperties": {"type": "integer"},
    },
    "members forbidden twice": {
        "allOf": [{"additionalProperties": False}, {"additionalProperties": {}}],
        "type": "object",
    },
    "reference into a list": {
        "anyOf": [{"$ref": "#/$defs/all/1"}],
        "$defs": {"all": [0, {"const": 3}]},
    },
    "required but undeclared": {"type": "object", "required": ["a"]},
    "undeclared of a type": {"required": ["a"], "additionalProperties": {"type": "integer"}},
    "impossible option": {"type": "object", "properties": {"a": False, "b": {"type": "null"}}},
    "few properties": {
        "type": "object",
        "properties": {"a": {}, "b": {}, "c": {}},
        "required": ["c"],
        "maxProperties": 2,
    },
    "many properties": {"type": "object", "minProperties": 4},
    "named by a pattern": {
        "type": "object",
        "patternProperties": {"^x[0-9]$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 3,
    },
    "property names": {
        "type": "object",
        "propertyNames": {"enum": ["one", "two"]},
        "minProperties": 2,
    },
    "allOf merged": {
        "allOf": [
            {"properties": {"a": {"type": "number"}}, "required": ["a"]},
            {"properties": {"a": {"minimum": 3}, "b": {}}, "required": ["b"]},
        ],
        "type": "object",
    },
    "anyOf beside members": {
        "type": "object",
        "properties": {"kind": {"type": "string"}},
        "required": ["kind"],
        "anyOf": [{"properties": {"kind": {"const": "b"}}}],
    },
    "two groups": {
        "anyOf": [{"type": "string"}, {"type": "integer"}],
        "oneOf": [{"type": "integer"}, {"type": "null"}],
    },
    "first branch impossible": {"anyOf": [False, {"type": "boolean"}]},
    "discriminated": {
        "oneOf": [
            {"properties": {"t": {"const": "a"}}, "required": ["t"]},
            {"properties": {"t": {"const": "b"}}, "required": ["t"]},
        ],
        "type": "object",
    },
    "reference beside members": {
        "$ref": "#/$defs/base",
        "minimum": 5,
        "$defs": {"base": {"type": "integer", "maximum": 5}},
    },
    "escaped reference": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}},
    "tree": TREE,
    "recursive list": {
        "type": "object",
        "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}},
        "required": ["n"],
    },
    "linked list that may end": {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    },
}


@pytest.mark.parametrize("schema", SATISFIABLE.values(), ids=SATISFIABLE)
def test_the_value_satisfies_the_schema(schema: Any) -> None:
    value = instance(schema)

    assert violations(schema, value) == []
    assert len(json.dumps(value)) < 20_000


UNSATISFIABLE: dict[str, Any] = {
    "false": False,
    "not a schema": 7,
    "empty range": {"type": "integer", "minimum": 2, "maximum": 1},
    "empty interval": {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1},
    "no whole number": {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    "no type": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "no such type": {"type": "float"},
    "no value": {"enum": []},
    "enum is no list": {"enum": 3},
    "other constants": {"allOf": [{"const": 1}, {"const": 2}]},
    "endless reference": {"$ref": "#"},
    "endless object": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "lost reference": {"$ref": "#/$defs/missing"},
    "foreign reference": {"$ref": "https://example.com/schema.json"},
    "too few unique items": {
        "type": "array",
        "items": {"type": "boolean"},
        "minItems": 3,
        "uniqueItems": True,
    },
    "too long a string": {"type": "string", "minLength": 10**9},
    "too long an array": {"type": "array", "minItems": 10**9},
    "too many properties": {"type": "object", "minProperties": 10**9},
    "more required than allowed": {"required": ["a", "b"], "maxProperties": 1},
    "required but forbidden": {"required": ["a"], "additionalProperties": False},
    "bound of a wrong type": {"type": "integer", "minimum": "3"},
    "keyword of a wrong type": {"type": "object", "properties": 3},
    "multiple of nothing": {"type": "integer", "multipleOf": 0},
    "multiple that does not fit": {"type": "integer", "multipleOf": 5, "minimum": 6, "maximum": 9},
    "lost reference into a list": {"$ref": "#/$defs/all/7", "$defs": {"all": [True]}},
    "no different constant": {"allOf": [{"enum": [1]}, {"const": 2}]},
    "members asked for and forbidden": {"minProperties": 1, "additionalProperties": False},
    "names by an unreadable pattern": {
        "minProperties": 1,
        "patternProperties": {"(?=a)": True},
        "additionalProperties": False,
    },
    "length that no pattern has": {"type": "string", "pattern": "^a$", "minLength": 2},
    "lengths that contradict": {"type": "string", "minLength": 2, "maxLength": 1},
    "items that cannot be": {"type": "array", "items": False, "minItems": 1},
    "too many branches": {"anyOf": []},
    "bound beyond all bounds": {"type": "number", "minimum": float("inf")},
    "pattern with a look-ahead": {"type": "string", "pattern": "(?=a)b"},
    "explosion": {
        "type": "array",
        "minItems": 100,
        "items": {"type": "array", "minItems": 100, "items": {"type": "array", "minItems": 100}},
    },
    **{f"refused {keyword}": {keyword: {}} for keyword in REFUSED},
}


@pytest.mark.parametrize("schema", UNSATISFIABLE.values(), ids=UNSATISFIABLE)
def test_what_cannot_be_satisfied_is_said_to_be_so(schema: Any) -> None:
    with pytest.raises(UnsatisfiableError):
        instance(schema)


def test_a_schema_nested_beyond_the_stack_is_refused() -> None:
    schema: Any = {"type": "null"}
    for _ in range(5000):
        schema = {"allOf": [schema]}

    with pytest.raises(UnsatisfiableError):
        instance(schema)


@pytest.mark.parametrize("kind", ["date-time", "date", "uuid", "email", "ipv4", "uri"])
def test_a_format_gives_different_strings(kind: str) -> None:
    schema = {"type": "array", "items": {"format": kind}, "minItems": 30, "uniqueItems": True}

    assert len(instance(schema)) == 30


def test_the_bounds_of_draft_4_are_flags() -> None:
    schema = {"type": "integer", "minimum": 3, "exclusiveMinimum": True}

    assert instance(schema) == 4
    assert instance({**schema, "exclusiveMinimum": False}) == 3


class Colour(BaseModel):
    name: str
    rgb: tuple[int, int, int]


class Drawing(BaseModel):
    title: str
    width: float
    colours: list[Colour]
    background: Colour | None
    parent: "Drawing | None"


def test_a_class_is_made_from_its_own_schema() -> None:
    Drawing.model_validate(instance(Drawing.model_json_schema()))


@st.composite
def integers(draw: st.DrawFn) -> Any:
    low = draw(st.integers(-50, 50))
    schema: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    if draw(st.booleans()):
        schema["minimum"] = low
    if draw(st.booleans()):
        schema["maximum"] = low + draw(st.integers(0, 50))
    if draw(st.booleans()) and "maximum" not in schema:
        schema["multipleOf"] = draw(st.sampled_from([1, 2, 3, 0.5, 0.01, 7.25]))
    return schema


@st.composite
def strings(draw: st.DrawFn) -> Any:
    shortest = draw(st.integers(0, 30))
    schema: dict[str, Any] = {"type": "string", "minLength": shortest}
    if draw(st.booleans()):
        schema["maxLength"] = shortest + draw(st.integers(0, 30))
    return schema


json_values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
leaves = st.one_of(
    integers(),
    strings(),
    st.builds(lambda value: {"const": value}, json_values),
    st.builds(lambda values: {"enum": values}, st.lists(json_values, min_size=1, max_size=4)),
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": ["null", "integer"]}, {}]),
)
names = st.sampled_from(["a", "b", "c", "d", "e/f", "g~h"])


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    @st.composite
    def objects(draw: st.DrawFn) -> Any:
        properties = draw(st.dictionaries(names, inner, max_size=4))
        return {
            "type": "object",
            "properties": properties,
            "required": draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
            if properties
            else [],
            "additionalProperties": draw(st.one_of(st.booleans(), inner)),
        }

    @st.composite
    def arrays(draw: st.DrawFn) -> Any:
        shortest = draw(st.integers(0, 3))
        schema = {"type": "array", "items": draw(inner), "minItems": shortest}
        if draw(st.booleans()):
            schema["maxItems"] = shortest + draw(st.integers(0, 3))
        if draw(st.booleans()):
            schema["prefixItems"] = draw(st.lists(inner, max_size=2))
        return schema

    return st.one_of(
        objects(),
        arrays(),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"allOf": [part, {}]}, inner),
    )


@examples(400)
@given(st.recursive(leaves, containers, max_leaves=12))
def test_generated_schemas_are_satisfied(schema: Any) -> None:
    assert violations(schema, instance(schema)) == []

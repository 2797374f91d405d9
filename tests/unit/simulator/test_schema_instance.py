import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft7Validator, Draft201909Validator, Draft202012Validator
from pydantic import BaseModel

from service.simulator.pattern_instance import UnsatisfiableError
from service.simulator.schema_instance import HONOURED, REFUSED, instance
from tests.support.examples import examples

FORMATS = Draft202012Validator.FORMAT_CHECKER


def check(schema: Any) -> Any:
    """Generate a value, and validate its decoded JSON with the library, with exact numbers."""
    text = json.dumps(instance(schema))
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    validator = Draft202012Validator(exact, format_checker=FORMATS)
    validator.validate(json.loads(text, parse_float=Decimal))
    assert len(text) < 20_000
    return json.loads(text)


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


def closed(**properties: Any) -> dict[str, Any]:
    """Return an object schema in the form that strict outputs require."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


EXPRESSION = {
    "anyOf": [
        closed(add=closed(left={"$ref": "#/$defs/e"}, right={"$ref": "#/$defs/e"})),
        closed(negate={"$ref": "#/$defs/e"}),
        closed(number={"type": "number"}),
    ]
}

SATISFIABLE: dict[str, Any] = {
    "true": True,
    "empty": {},
    "annotations": {"title": "T", "description": "D", "default": 3, "x-vendor": 1, "type": "null"},
    "type list": {"type": ["null", "string"]},
    "only null": {"type": ["null"]},
    "const object": {"const": {"a": [1, None]}},
    "const beside a type": {"type": "string", "const": "x"},
    "const beside an enum": {"type": "string", "const": "x", "enum": ["x"]},
    "enum of a type": {"type": "integer", "enum": ["a", True, 1.5, 3]},
    "enum that can be null": {"type": ["string", "null"], "enum": [None, "a"]},
    "integer": {"type": "integer", "minimum": 7, "maximum": 7},
    "exclusive": {"type": "integer", "exclusiveMinimum": 7, "exclusiveMaximum": 9},
    "both kinds of bound": {"type": "number", "minimum": 1, "exclusiveMinimum": 1},
    "negative": {"type": "integer", "maximum": -1},
    "multiple": {"type": "number", "multipleOf": 0.1, "minimum": 0.25},
    "integer multiple of a fraction": {"type": "integer", "multipleOf": 1.5, "minimum": 1},
    "open interval": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "narrow interval": {"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.10001},
    "open below": {"type": "number", "exclusiveMaximum": -3.5},
    "64 bits": {"type": "integer", "minimum": -(2**63), "maximum": -(2**63) + 1},
    "short string": {"type": "string", "maxLength": 2},
    "long string": {"type": "string", "minLength": 40, "maxLength": 40},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$", "maxLength": 4},
    "array": {"type": "array", "items": {"type": "string"}},
    "array of a length": {"type": "array", "items": {"type": "integer"}, "minItems": 5},
    "no items": {"type": "array", "maxItems": 0},
    "items without a type": {"items": {"type": "null"}},
    "members without a type": {"properties": {"a": {"type": "null"}}, "required": ["a"]},
    "nested": closed(a=closed(b=closed(c=closed(d=closed(e={"type": "boolean"}))))),
    "required but undeclared": {"type": "object", "required": ["b", "a"]},
    "undeclared of a type": {
        "type": "object",
        "required": ["a"],
        "additionalProperties": {"type": "integer"},
    },
    "option that is refused": {"type": "object", "properties": {"a": {"not": {}}, "b": {}}},
    "first branch impossible": {"anyOf": [{"enum": []}, {"type": "boolean"}]},
    "reference beside annotations": {
        "$ref": "#/$defs/a",
        "title": "T",
        "$defs": {"a": {"const": 1}},
    },
    "escaped reference": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}},
    "reference into a list": {"anyOf": [{"const": 1}], "$defs": {"a": {"$ref": "#/anyOf/0"}}},
    "tree": TREE,
    "expression": {"$ref": "#/$defs/e", "$defs": {"e": EXPRESSION}},
    "recursive option": {
        "type": "object",
        "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}},
        "required": ["n"],
    },
    "linked list that can end": closed(next={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
}


@pytest.mark.parametrize("schema", SATISFIABLE.values(), ids=SATISFIABLE)
def test_the_value_satisfies_the_schema(schema: Any) -> None:
    assert check(schema) == check(schema)


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "date-time",
            "time",
            "date",
            "duration",
            "email",
            "hostname",
            "ipv4",
            "ipv6",
            "uuid",
            "uri",
        )
    ],
)
def test_a_format_is_kept(kind: str) -> None:
    check({"type": "string", "format": kind})


UNSATISFIABLE: dict[str, Any] = {
    "false": False,
    "not a schema": 7,
    "empty range": {"type": "integer", "minimum": 2, "maximum": 1},
    "empty interval": {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1},
    "interval without a float": {
        "type": "number",
        "exclusiveMinimum": 0.1,
        "exclusiveMaximum": 0.10000000000000002,
    },
    "no whole number": {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    "no such type": {"type": "float"},
    "no value": {"enum": []},
    "enum is no list": {"enum": 3},
    "no value of the type": {"type": "integer", "enum": ["a", True]},
    "const that no enum has": {"const": 1, "enum": [2]},
    "enum beside a bound": {"enum": [1, 2], "minimum": 2},
    "endless reference": {"$ref": "#"},
    "endless object": closed(a={"$ref": "#"}),
    "lost reference": {"$ref": "#/$defs/missing"},
    "lost reference into a list": {"$ref": "#/$defs/a/7", "$defs": {"a": [True]}},
    "reference by anchor": {"$ref": "#name"},
    "foreign reference": {"$ref": "https://example.com/schema.json#/a", "a": {}},
    "reference beside a bound": {"$ref": "#/$defs/a", "minimum": 5, "$defs": {"a": {}}},
    "anyOf beside members": {"type": "object", "anyOf": [{"required": ["a"]}]},
    "no branch": {"anyOf": []},
    "too long a string": {"type": "string", "minLength": 10**9},
    "too long an array": {"type": "array", "minItems": 10**9},
    "lengths that contradict": {"type": "string", "minLength": 2, "maxLength": 1},
    "sizes that contradict": {"type": "array", "minItems": 2, "maxItems": 1},
    "required but forbidden": {"type": "object", "required": ["a"], "additionalProperties": False},
    "bound of a wrong type": {"type": "integer", "minimum": "3"},
    "bound that is a flag": {"type": "integer", "minimum": 3, "exclusiveMinimum": True},
    "bound beyond all bounds": {"type": "number", "minimum": float("inf")},
    "keyword of a wrong type": {"type": "object", "properties": 3},
    "multiple of nothing": {"type": "integer", "multipleOf": 0},
    "multiple that does not fit": {"type": "integer", "multipleOf": 5, "minimum": 6, "maximum": 9},
    "items that cannot be": {"type": "array", "items": False, "minItems": 1},
    "unknown format": {"type": "string", "format": "colour"},
    "format of another length": {"type": "string", "format": "date", "maxLength": 3},
    "pattern of another length": {"type": "string", "pattern": "^a$", "minLength": 2},
    "pattern with a look-ahead": {"type": "string", "pattern": "(?=a)b"},
    "pattern of a wrong type": {"type": "string", "pattern": 3},
    "explosion": {
        "type": "array",
        "minItems": 100,
        "items": {"type": "array", "minItems": 100, "items": {"type": "array", "minItems": 100}},
    },
    "explosion of strings": {"type": "array", "minItems": 9999, "items": {"minLength": 9999}},
    "explosion of patterns": {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
    "explosion of branches": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"anyOf": [closed(a={"$ref": "#/$defs/a"})] * 20}},
    },
    **{f"refused {keyword}": {keyword: {}} for keyword in sorted(REFUSED)},
}


@pytest.mark.parametrize("schema", UNSATISFIABLE.values(), ids=UNSATISFIABLE)
def test_what_cannot_be_satisfied_is_refused(schema: Any) -> None:
    with pytest.raises(UnsatisfiableError):
        instance(schema)


def test_a_schema_nested_beyond_the_stack_is_refused() -> None:
    schema: Any = {"type": "null"}
    for _ in range(5000):
        schema = {"anyOf": [schema]}

    with pytest.raises(UnsatisfiableError):
        instance(schema)


def test_every_keyword_that_can_reject_a_value_is_honoured_or_refused() -> None:
    validators = (Draft4Validator, Draft7Validator, Draft201909Validator, Draft202012Validator)
    keywords = {keyword for validator in validators for keyword in validator.VALIDATORS}

    assert not HONOURED & REFUSED
    assert keywords - HONOURED == REFUSED


def test_the_largest_strict_schema_is_satisfied() -> None:
    # OpenAI accepts 5,000 properties in 10 levels.
    schema: dict[str, Any] = closed()
    for level in range(10):
        names = [f"property_{level}_{number}" for number in range(499)]
        schema = closed(**{name: {"type": "string"} for name in names}, inner=schema)

    Draft202012Validator(schema).validate(instance(schema))


def test_an_object_has_its_options_and_an_array_an_item() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {"const": 1}},
    }

    assert instance(schema) == {"a": [0], "b": 1}


class Colour(BaseModel):
    name: str
    alpha: float | None = None


class Drawing(BaseModel):
    title: str
    width: float
    colours: list[Colour]
    background: Colour | None
    parent: "Drawing | None"


def test_a_class_is_made_from_its_own_schema() -> None:
    drawing = Drawing.model_validate(instance(Drawing.model_json_schema()))

    assert drawing.background is not None
    assert drawing.colours


@st.composite
def numbers(draw: st.DrawFn) -> Any:
    schema: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    number = st.integers(-200, 200).map(lambda quarters: quarters / 4)
    for keyword in draw(st.lists(st.sampled_from(["minimum", "exclusiveMinimum"]), unique=True)):
        schema[keyword] = draw(number)
    for keyword in draw(st.lists(st.sampled_from(["maximum", "exclusiveMaximum"]), unique=True)):
        schema[keyword] = draw(number)
    if draw(st.booleans()):
        schema["multipleOf"] = draw(st.sampled_from([1, 2, 3, 0.5, 7.25]))
    return schema


@examples(400)
@given(numbers())
def test_a_number_is_found_if_there_is_one(schema: Any) -> None:
    try:
        check(schema)
    except UnsatisfiableError:
        bounds = {name: Fraction(bound) for name, bound in schema.items() if name != "type"}
        parts = 1 if schema["type"] == "integer" else 8
        grid = (Fraction(number, parts) for number in range(-60 * parts, 60 * parts))
        assert not any(satisfies(number, bounds) for number in grid)


def satisfies(number: Fraction, bounds: dict[str, Fraction]) -> bool:
    return (
        bounds.get("minimum", -99) <= number <= bounds.get("maximum", 99)
        and bounds.get("exclusiveMinimum", -99) < number < bounds.get("exclusiveMaximum", 99)
        and number % bounds.get("multipleOf", Fraction(1, 8)) == 0
    )


@st.composite
def strings(draw: st.DrawFn) -> Any:
    shortest = draw(st.integers(0, 30))
    schema: dict[str, Any] = {"type": "string", "minLength": shortest}
    if draw(st.booleans()):
        schema["maxLength"] = shortest + draw(st.integers(0, 30))
    return schema


json_values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
leaves = st.one_of(
    strings(),
    st.builds(lambda value: {"const": value}, json_values),
    st.builds(lambda values: {"enum": values}, st.lists(json_values, min_size=1, max_size=4)),
    st.sampled_from(
        [
            {"type": "null"},
            {"type": ["null", "integer"]},
            {"type": "number", "minimum": 1.5, "exclusiveMaximum": 2},
            {"type": "string", "format": "date"},
            {"type": "string", "pattern": "^a+$"},
            {"$ref": "#/$defs/leaf"},
            {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            {"type": "array", "items": {"$ref": "#"}},
        ]
    ),
)
names = st.sampled_from(["a", "b", "c", "d", "e/f", "g~h"])


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    @st.composite
    def arrays(draw: st.DrawFn) -> Any:
        shortest = draw(st.integers(0, 3))
        schema = {"type": "array", "items": draw(inner), "minItems": shortest}
        if draw(st.booleans()):
            schema["maxItems"] = shortest + draw(st.integers(0, 3))
        return schema

    return st.one_of(
        st.builds(lambda members: closed(**members), st.dictionaries(names, inner, max_size=4)),
        arrays(),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
    )


@examples(400)
@given(st.dictionaries(names, st.recursive(leaves, containers, max_leaves=12), max_size=4))
def test_a_strict_schema_is_satisfied(members: dict[str, Any]) -> None:
    check({**closed(**members), "$defs": {"leaf": {"type": "boolean"}}})

"""Documents and messages that hypothesis generates, mostly with members of the contract.

    documents(shape)    JSON text: members of the shape with right, wrong, null and empty values, in
                        odd spellings and more than once; members of vendors, at any depth
    messages(shape)     canonical messages: those that decoding a document can return

Values come from tables of literals, so that drawing is fast and includes edge cases.
"""

import json
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st

from chatcompletion.openai_json.documents import SHAPES
from chatcompletion.openai_json.shapes import Arm, Form, Shape

STRINGS = (
    '""', '"a"', '"auto"',
    '"\\u00e4"', '"ä"', '"😀"', '"\\ud83d\\ude00"', '"\\ud83d"',
    '"x\\udc00y"', '"\\n\\r\\t\\b\\f\\/\\\\\\""', '"\\u0000"', '"\u2028\u0085"', '"null"',
    '"1"', '"{\\"a\\":1}"',
    '"\\\\"', '"\\\\\\""', '"\x7f\ufeff"', '"\\ud83d\\ud83d\\ude00"', '"' + "long " * 60 + '"',
)  # fmt: skip
"""JSON strings."""

INTEGERS = (
    "0", "-0", "1", "-1", "7", "255", "256", "1700000000", "9007199254740993", "1.0", "1e2",
    "70e-1",
    "9223372036854775807", "-9223372036854775808", "9223372036854775808", "-9223372036854775809",
    "0.0", "1E+1", "123456789012345678901234567890", "1" + "0" * 30, "9" * 5000,
)  # fmt: skip
"""JSON numbers that are integers, within and beyond int64."""

FRACTIONS = (
    "0.5", "-0.5", "0.1", "1.5", "-0.0", "0.30000000000000004", "-1e-07", "1e-7", "5e-324",
    "1e-400", "1e400",
    "-1e999", "1.7976931348623157e308", "0.1000000000000000055511151231257827", "1e22",
    "1e23", "9007199254740993.0", "3.4028234663852886e+38", "0.99999999999999999999", "1e-0",
    "1e999999999", "1e-99999999999999999999",
)  # fmt: skip
"""JSON numbers that are not integers, or not spelt as integers."""

ANY = (
    "null", "true", "false", "{}", "[]", "[ ]", "{ }", "[[]]", "[null]", '{"a":1,"a":2}',
    '{"a":{"b":1,"b":[{"c":1,"c":2}]},"a":{"b":null,"b":3.50}}', '[ 1.0 ,\n1e2,\r\n\t"\\ud83d" ]',
    '{"":0,"\\"":1,"\\ud83d":2,"\\ud83d":3}', '{"a":1,"\\u0061":2}', "[" * 40 + "]" * 40,
    '{"type":"object","properties":{"type":{"type":"string"}},"required":["type"]}',
    '["a:b\\":\\\\",{"a\\\\":1}]', "[0,255]", "[0,256]", "[1.0]", '["a","b"]', '["a",1]', '[{},{}]',
    '[{},1]', '{"a":"b"}', '{"a":"b","a":1}', '{"1":1,"2":0.5}', '{"1":1e999}', '{"a":null}',
)  # fmt: skip
"""JSON values."""

NAMES = (
    "top_k", "stop_reason", "", '\\"', '\\"q\\"', "\\ud83d", "a\\udc00", "extra_json", "stop_text",
    "content_text", "items", "error", "name", "content", "\\u006dodel", "index", "a.b", "\\n", "ä",
)  # fmt: skip
"""Names of members, as the text between the quotation marks."""

SPACES = ("", "", "", " ", "\n", "\r\n\t")

WELL_SPELT = {
    Form.STRING: STRINGS,
    Form.INTEGER: INTEGERS,
    Form.NUMBER: INTEGERS + FRACTIONS,
    Form.BOOLEAN: ("true", "false"),
    Form.BYTES: ("[]", "[0]", "[104,105]", "[ 255 ]", "[256]", "[-1]", "[1.0]"),
    Form.ANY: ANY,
    Form.STRINGS: ("[]", '["a"]', '["a","",1]', '["\\ud83d"]', '[ "a" , "b" ]'),
    Form.STRING_MAP: ("{}", '{"a":"b"}', '{"a":"b","\\"":""}', '{"a":"\\ud83d"}', '{"a":1}'),
    Form.NUMBER_MAP: ("{}", '{"1":1}', '{"1":-0.5,"2":1e2}', '{"1":9007199254740993}', '{"1":""}'),
}
"""Values of each form, and near misses; objects are generated."""

_wrong = st.sampled_from(STRINGS + INTEGERS + FRACTIONS + ANY)
_well_spelt = {form: st.sampled_from(values) for form, values in WELL_SPELT.items()}
_spaces = st.sampled_from(SPACES)
_dice = st.integers(0, 9)


@st.composite
def documents(draw: st.DrawFn, shape: Shape) -> str:
    """JSON text of an object."""
    return _object(draw, shape)


def _object(draw: st.DrawFn, shape: Shape) -> str:
    names = _member_names(shape)
    members = []
    for name in draw(names):
        member = shape.members.get(name)
        dice = draw(_dice)
        if member is None or dice == 0:
            value = draw(_wrong)
        elif dice == 1:
            value = "null"
        else:
            arm = member.arms[dice % len(member.arms)]
            value = _value(draw, arm)
        space = draw(_spaces) if dice > 7 else ""
        members.append(f'{space}"{name}"{space}:{value}{space}')
    return "{" + ",".join(members) + "}"


def _value(draw: st.DrawFn, arm: Arm) -> str:
    if arm.form is Form.OBJECT:
        return _object(draw, _inner(arm))
    if arm.form is Form.OBJECTS:
        count = min(draw(_dice), 3)
        items = [_object(draw, _inner(arm)) for _ in range(count)]
        if draw(_dice) == 0:
            items.append(draw(_wrong))
        return "[" + ",".join(items) + "]"
    return draw(_well_spelt[arm.form])


def _inner(arm: Arm) -> Shape:
    assert arm.shape is not None
    return SHAPES[arm.shape]


_MEMBER_NAMES: dict[str, st.SearchStrategy[list[str]]] = {}


def _member_names(shape: Shape) -> st.SearchStrategy[list[str]]:
    if shape.name not in _MEMBER_NAMES:
        known = [*shape.members] * (1 + 3 * len(NAMES) // len(shape.members))
        _MEMBER_NAMES[shape.name] = st.lists(st.sampled_from([*known, *NAMES]), max_size=6)
    return _MEMBER_NAMES[shape.name]


KEPT = (
    "true", "false", "0", "-1", "1.50", "1e999", "9" * 5000, '""', '"a"', '"\\ud83d"', "{}", "[]",
    '{"a":[1.0,{"b":null}]}', '{"\\ud83d":1,"b":"\\u000a"}', '["a:b\\"", "c\\\\"]', "[[[]]]",
)  # fmt: skip
"""Texts that are kept unchanged."""

KEYS = ("top_k", "", "items", "ä", '"\\"q"', '"\\ud83d"', "extra_json", "a\nb", "stop_text")
"""Keys of extra_json that are not names of fields."""

_text = st.sampled_from(
    ("", "a", "ä😀", '"', "\\", "a\nb\r", "\x00\x1f\x7f", "\u2028\ufeff", "null")
)
_values: dict[Form, st.SearchStrategy[Any]] = {
    Form.STRING: _text,
    Form.INTEGER: st.sampled_from((0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 1_700_000_000)),
    Form.NUMBER: st.one_of(
        st.sampled_from((0.0, -0.0, 1.0, 0.1, -9999.0, 1e22, 2.0**53, 2.0**53 + 2, 5e-324, 1e300)),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    Form.BOOLEAN: st.booleans(),
    Form.BYTES: st.binary(max_size=3),
    Form.STRINGS: st.lists(_text, max_size=3),
    Form.STRING_MAP: st.dictionaries(_text, _text, max_size=3),
}
_extra_value = st.sampled_from(KEPT)
_extra = st.dictionaries(
    st.sampled_from(KEYS), st.one_of(st.just("null"), _extra_value), max_size=2
)


@st.composite
def messages(draw: st.DrawFn, shape: Shape) -> Any:
    """A canonical message."""
    message = shape.message()
    _fill(draw, shape, message)
    return message


def _fill(draw: st.DrawFn, shape: Shape, message: Message) -> None:
    message.SetInParent()
    extra = message.extra_json  # type: ignore[attr-defined]  # each shape has it
    nulls: set[str] = set()
    for name in draw(_field_names(shape)):
        member = shape.members[name]
        dice = draw(_dice)
        arm = member.arms[dice % len(member.arms)]
        if dice == 0:
            nulls.add(name)
        else:
            _set(draw, message, arm)
    # In the order of the .proto file, as they are read.
    numbers = bytes(member.number for member in shape.members.values() if member.name in nulls)
    message.null_fields = numbers  # type: ignore[attr-defined]  # each shape has it
    if draw(_dice) > 6:
        for key, text in draw(_extra).items():
            extra[key] = text


_FIELD_NAMES: dict[str, st.SearchStrategy[list[str]]] = {}


def _field_names(shape: Shape) -> st.SearchStrategy[list[str]]:
    if shape.name not in _FIELD_NAMES:
        _FIELD_NAMES[shape.name] = st.lists(
            st.sampled_from([*shape.members]), max_size=5, unique=True
        )
    return _FIELD_NAMES[shape.name]


def _set(draw: st.DrawFn, message: Message, arm: Arm) -> None:
    field = getattr(message, arm.field, None)
    if arm.boxed:
        assert field is not None
        field.SetInParent()
        field = field.items
    match arm.form:
        case Form.OBJECT:
            assert field is not None
            _fill(draw, _inner(arm), field)
        case Form.OBJECTS:
            assert field is not None
            for _ in range(min(draw(_dice), 2)):
                _fill(draw, _inner(arm), field.add())
        case Form.STRINGS:
            assert field is not None
            field.extend(draw(_values[arm.form]))
        case Form.STRING_MAP:
            assert field is not None
            field.update(draw(_values[arm.form]))
        case Form.NUMBER_MAP:
            assert field is not None
            field.update({"1": draw(_values[Form.NUMBER])})
        case Form.ANY:
            assert field is not None
            field.text = draw(_extra_value)
        case _:
            setattr(message, arm.field, draw(_values[arm.form]))


@st.composite
def tampered_messages(draw: st.DrawFn, shape: Shape) -> Any:
    """A message with text in its extra_json that need not belong there, or be JSON at all."""
    message = draw(messages(shape))
    for _ in range(draw(st.integers(1, 3))):
        owner = _some_object(draw, shape, message)
        name = draw(_member_names(owner[0]))
        text = draw(st.one_of(_wrong, st.sampled_from(BROKEN)))
        for escaped in name[:1]:
            quoted = f'"{escaped}"'
            plain = json.loads(quoted)
            takes_plain = plain.isprintable() and draw(_dice) > 0  # no surrogate is printable
            owner[1].extra_json[plain if takes_plain else quoted] = text
    return message


BROKEN = (
    "", " ", "1,2", '1,"model":"m"', "1}", "{", "nul", "NaN", "-Infinity", "01", "'a'", '"\n"',
    " 1", "1 ",
    "\ufeff1", "[1,]", '{"a":1', "\x00", "[" * 200 + "]" * 200, '"', '{"a":1} x', "null ",
)  # fmt: skip
"""Texts that are not exactly one JSON value in its kept form."""


def _some_object(draw: st.DrawFn, shape: Shape, message: Any) -> tuple[Shape, Any]:
    for member in shape.members.values():
        for arm in member.arms:
            if arm.shape is None or (not arm.repeated and not message.HasField(arm.field)):
                continue
            value = getattr(message, arm.field)
            items = [value] if arm.form is Form.OBJECT else value.items if arm.boxed else value
            if len(items) and draw(_dice) > 3:
                return _some_object(draw, SHAPES[arm.shape], items[0])
    return shape, message

"""The paths of objects and members in a document.

    messages[0]                           an element of an array of objects
    messages[0].content[1].image_url      an object in an object
    messages[0].content                   a member
    stop[2]                               an element of an array of strings

`mistyped_members` finds the members whose values have another type than their fields, and
`unknown_members` finds those that have no field.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from chatcompletion.openai_json import lenient_values
from chatcompletion.openai_json.numbers import exceeds_int64, is_double
from chatcompletion.openai_json.shapes import EXTRA, Arm, Form, Member, Shape


@dataclass(kw_only=True, frozen=True, slots=True)
class Mistyped:
    """A member, or an element of one, whose value has another type than its field.

    Attributes:
        param: The path of the member or element, such as `messages[0].content[1]`.
        name: The name of the member, such as `content`.
        expected: The allowed types of the member or element, for people, such as ("string", "array
            of objects").
        received: The type of the value, for people, such as "integer".
        out_of_range: Whether the value has the right type but is a number that the field cannot
            hold.
    """

    param: str
    name: str
    expected: tuple[str, ...]
    received: str
    out_of_range: bool


@dataclass(kw_only=True, frozen=True, slots=True)
class Unknown:
    """An object with members outside the contract.

    Attributes:
        path: The path of the object, such as `messages[0].content[1]`; empty for the document.
        owner: The object.
        names: The keys of these members in the object's extra_json.
    """

    path: str
    owner: Any
    names: tuple[str, ...]


def join(path: str, name: str) -> str:
    """Return the path of a member.

    Args:
        path: The path of its object; empty for the document.
        name: The name of the member.
    """
    return f"{path}.{name}" if path else name


def objects(
    shapes: dict[str, Shape], shape: Shape, message: Message, path: str = ""
) -> Iterator[tuple[str, Shape, Message]]:
    """Yield each object in a message with its path, nested objects first."""
    for member in shape.members.values():
        for arm in member.arms:
            if arm.shape is None or not (arm.repeated or message.HasField(arm.field)):
                continue
            value = getattr(message, arm.field)
            place = join(path, member.name)
            if arm.form is Form.OBJECT:
                yield from objects(shapes, shapes[arm.shape], value, place)
                continue
            for index, item in enumerate(value.items if arm.boxed else value):
                yield from objects(shapes, shapes[arm.shape], item, f"{place}[{index}]")
    yield path, shape, message


def mistyped_members(
    shapes: dict[str, Shape], shape: Shape, message: Message
) -> Iterator[Mistyped]:
    """Yield the members in extra_json of a canonical message whose type does not match their field.

    Null, empty arrays and objects of repeated and map fields, and strings with unpaired surrogates
    are in extra_json too, but have the right type.
    """
    for path, inner, owner in objects(shapes, shape, message):
        extra = getattr(owner, EXTRA)
        for name in sorted(extra):
            member = inner.members.get(name)
            if member is not None and (text := extra[name]) != "null":
                found = _mistyped(member, text, join(path, name))
                if found is not None:
                    yield found


def unknown_members(shapes: dict[str, Shape], shape: Shape, message: Message) -> Iterator[Unknown]:
    """Yield the objects in the canonical `message` that have unknown members other than null."""
    for path, inner, owner in objects(shapes, shape, message):
        extra = getattr(owner, EXTRA)
        names = tuple(n for n in sorted(extra) if n not in inner.members and extra[n] != "null")
        if names:
            yield Unknown(path=path, owner=owner, names=names)


SCALAR_STARTS = {
    Form.STRING: '"',
    Form.INTEGER: "-0123456789",
    Form.NUMBER: "-0123456789",
    Form.BOOLEAN: "tf",
    Form.OBJECT: "{",
}
"""The first characters that a value of each form can have."""

ELEMENTS = {
    Form.STRINGS: ("[", Form.STRING),
    Form.OBJECTS: ("[", Form.OBJECT),
    Form.STRING_MAP: ("{", Form.STRING),
    Form.NUMBER_MAP: ("{", Form.NUMBER),
}
"""The first character of a value of each form, and the form of its elements."""


def _mistyped(member: Member, text: str, path: str) -> Mistyped | None:
    for arm in member.arms:
        if arm.form in SCALAR_STARTS:
            if text[0] in SCALAR_STARTS[arm.form]:
                return _number(member, arm.form, text, path)
        elif arm.form in ELEMENTS and text[0] == ELEMENTS[arm.form][0]:
            return _element(member, arm, text, path)
    expected = tuple(form.value for form in member.forms)
    return Mistyped(
        param=path,
        name=member.name,
        expected=expected,
        received=type_of(text),
        out_of_range=False,
    )


def _number(member: Member, form: Form, literal: str, path: str) -> Mistyped | None:
    if form not in {Form.INTEGER, Form.NUMBER}:
        return None
    return Mistyped(
        param=path,
        name=member.name,
        expected=(form.value,),
        received=type_of(literal),
        out_of_range=form is Form.NUMBER or exceeds_int64(literal),
    )


def _element(member: Member, arm: Arm, text: str, path: str) -> Mistyped | None:
    begin, form = ELEMENTS[arm.form]
    if begin == "[":
        items = [(f"{path}[{at}]", item) for at, item in enumerate(lenient_values.elements(text))]
        expected = form.value
    else:
        items = [(path, item) for item in lenient_values.members(text).values()]
        expected = arm.form.value
    for place, item in items:
        wrong = item[0] not in SCALAR_STARTS[form]
        if wrong or (form is Form.NUMBER and not is_double(item)):
            return Mistyped(
                param=place,
                name=member.name,
                expected=(expected,),
                received=type_of(item) if begin == "[" else f"object with {_KINDS[item[0]]}",
                out_of_range=not wrong,
            )
    return None


_TYPES = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
_KINDS = {
    **dict.fromkeys("-0123456789", "numbers"),
    **dict.fromkeys("tf", "booleans"),
    '"': "strings",
    "{": "objects",
    "[": "arrays",
    "n": "nulls",
}


def type_of(text: str) -> str:
    """Return the name of the type of a JSON text, for people."""
    if text[0] in _TYPES:
        return _TYPES[text[0]]
    return "number" if set(text) & set(".eE") else "integer"


def field_path(shapes: dict[str, Shape], shape: Shape, path: str) -> str:
    """Return the path of a member in the message: of the field that carries it.

    Args:
        shapes: All shapes.
        shape: The shape of the document.
        path: The path of the member in the document.
    """
    fields: list[str] = []
    inner: Shape | None = shape
    segments = path.split(".")
    for position, segment in enumerate(segments):
        name, bracket, index = segment.partition("[")
        member = inner.members.get(name) if inner else None
        if member is None:
            return ".".join([*fields, f'{EXTRA}["{".".join(segments[position:])}"]'])
        arm = _arm_of(member, is_list=bool(bracket), is_last=position == len(segments) - 1)
        box = ".items" if bracket and arm.boxed else ""
        fields.append(f"{arm.field}{box}{bracket}{index}")
        inner = shapes[arm.shape] if arm.shape else None
    return ".".join(fields)


def _arm_of(member: Member, *, is_list: bool, is_last: bool) -> Arm:
    if is_list:
        return next((arm for arm in member.arms if arm.boxed or arm.repeated), member.arms[0])
    if not is_last:
        return next((arm for arm in member.arms if arm.form is Form.OBJECT), member.arms[0])
    return member.arms[0]

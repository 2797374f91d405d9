"""The JSON form of each message, read from the descriptors.

    field in the .proto                    form           JSON
    optional string                        STRING         string
    optional int64                         INTEGER        integer
    optional double                        NUMBER         number
    optional bool                          BOOLEAN        true, false
    optional bytes                         BYTES          array of integers from 0 to 255
    RawJson                                ANY            any value except null
    another message                        OBJECT         object
    repeated string, StringList            STRINGS        array of strings
    repeated message, ContentPartList      OBJECTS        array of objects
    map<string, string>                    STRING_MAP     object with string values
    map<string, double>                    NUMBER_MAP     object with number values

A plain field is a member with one arm. A oneof is a member with an arm for each JSON type. A list
in a oneof is boxed in a separate message, which has presence, so that it can express `[]`.
"""

import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

EXTRA = "extra_json"
"""The name of the field that holds the members that no other field can carry: field 15."""

NULLS = "null_fields"
"""The name of the field that holds the numbers of explicitly null members: field 14."""


class Form(enum.Enum):
    """The JSON form of a field. The value names it for people."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    BYTES = "array of integers from 0 to 255"
    ANY = "any value"
    OBJECT = "object"
    STRINGS = "array of strings"
    OBJECTS = "array of objects"
    STRING_MAP = "object with string values"
    NUMBER_MAP = "object with number values"


SCALARS = {
    FieldDescriptor.TYPE_STRING: Form.STRING,
    FieldDescriptor.TYPE_INT64: Form.INTEGER,
    FieldDescriptor.TYPE_DOUBLE: Form.NUMBER,
    FieldDescriptor.TYPE_BOOL: Form.BOOLEAN,
    FieldDescriptor.TYPE_BYTES: Form.BYTES,
}

REPEATED = {FieldDescriptor.TYPE_STRING: Form.STRINGS}

MAPS = {
    FieldDescriptor.TYPE_STRING: Form.STRING_MAP,
    FieldDescriptor.TYPE_DOUBLE: Form.NUMBER_MAP,
}

ARMS_BY_TYPE = {Form.STRING, Form.INTEGER, Form.OBJECT, Form.STRINGS, Form.OBJECTS}
"""The forms that the arms of a oneof can have: a JSON value fits only one of them."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Arm:
    """A field that can carry a member.

    Attributes:
        field: The name of the field.
        form: The JSON form of the field.
        shape: For OBJECT and OBJECTS, the full name of the message type of an object.
        boxed: Whether the list is the field `items` of a separate message.
    """

    field: str
    form: Form
    shape: str | None = None
    boxed: bool = False

    @property
    def repeated(self) -> bool:
        """Whether the field has no presence, so that empty and absent are the same."""
        lists = {Form.STRINGS, Form.OBJECTS, Form.STRING_MAP, Form.NUMBER_MAP}
        return self.form in lists and not self.boxed


@dataclass(kw_only=True, frozen=True, slots=True)
class Member:
    """A member of a JSON object.

    Attributes:
        name: Its name.
        number: The number of its first field, which represents the member in null_fields.
        arms: The fields that can carry it.
    """

    name: str
    number: int
    arms: tuple[Arm, ...]

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms of the arms."""
        return tuple(arm.form for arm in self.arms)


@dataclass(kw_only=True, frozen=True, slots=True)
class Shape:
    """A message that mirrors a JSON object.

    Attributes:
        name: The full name of the message.
        message: Its class.
        members: Its members by name, in the order of the .proto file.
    """

    name: str
    message: type[Message]
    members: dict[str, Member]


def shapes_below(*roots: Descriptor) -> dict[str, Shape]:
    """Return the shapes of these messages and of all nested messages, by full name.

    Raises:
        TypeError: No rule of this module covers a field.
    """
    found: dict[str, Shape] = {}
    waiting = list(roots)
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name in found:
            continue
        members = {member.name: member for member in _members(descriptor)}
        found[descriptor.full_name] = Shape(
            name=descriptor.full_name, message=GetMessageClass(descriptor), members=members
        )
        inner = {arm.shape for member in members.values() for arm in member.arms if arm.shape}
        waiting.extend(map(descriptor.file.pool.FindMessageTypeByName, sorted(inner)))
    return found


def _members(descriptor: Descriptor) -> Iterator[Member]:
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if field.name in {EXTRA, NULLS}:
            continue
        if oneof is None or len(oneof.fields) == 1:
            yield Member(name=field.name, number=field.number, arms=(_arm(field),))
        elif field.name == oneof.fields[0].name:
            arms = tuple(map(_oneof_arm, oneof.fields))
            if not {arm.form for arm in arms} <= ARMS_BY_TYPE:
                raise TypeError(f"{oneof.full_name}: no JSON type tells its arms apart")
            yield Member(name=oneof.name, number=field.number, arms=arms)


def _oneof_arm(field: FieldDescriptor) -> Arm:
    if _form(field) is not None:
        return _arm(field)
    items = field.message_type.fields_by_name.get("items") if field.message_type else None
    if items is None:
        raise TypeError(f"{field.full_name}: no rule says how it stands in JSON")
    return dataclasses.replace(_arm(items), field=field.name, boxed=True)


def _arm(field: FieldDescriptor) -> Arm:
    form = _form(field)
    if form is None:
        raise TypeError(f"{field.full_name}: no rule says how it stands in JSON")
    nested = field.message_type if form in {Form.OBJECT, Form.OBJECTS} else None
    return Arm(field=field.name, form=form, shape=nested.full_name if nested else None)


def _form(field: FieldDescriptor) -> Form | None:
    message = field.message_type
    if message is None:
        table = REPEATED if field.is_repeated else SCALARS
        return table.get(field.type)
    if message.GetOptions().map_entry:
        return MAPS.get(message.fields_by_name["value"].type)
    if EXTRA in message.fields_by_name:
        return Form.OBJECTS if field.is_repeated else Form.OBJECT
    return Form.ANY if message.name == "RawJson" and not field.is_repeated else None
